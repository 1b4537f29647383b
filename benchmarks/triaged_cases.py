"""Whom to look at first: is a case unlike the training found, and does the expected Dice rank?

Held-out hippocampi are compared with those of other heads, with places 25 mm off, with noise, and
with lung nodules. What is told of a held-out case comes from a fit to other patients.

python -m benchmarks.triaged_cases --templates /usr/share/mricron/templates/ch2.nii.gz --work runs
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks.whole_scans import SIDES, heads
from medsegdiff.cases import segment
from medsegdiff.core import read_json, write_json
from medsegdiff.data import load_manifest
from medsegdiff.metrics import dice
from medsegdiff.triage import KnownCase, Triage, crossed, fit_triage, log_odds

logger = logging.getLogger("benchmarks")

RESULTS = Path("benchmarks/results/triaged_cases.json")
BUNDLE = "hippocampus_mr"
CLASSES = ("anterior", "posterior")
ALPHA = 0.05
OFF_MM = 25.0
PER_HEAD = 4
"""Places off the hippocampi, of each head."""
NOISE, NODULES = 20, 40
Places = tuple[dict[str, Any], ...]


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = _parse(words)
    held_out = _held_out(arguments.root, arguments.work)
    whole = fit_triage([case for case, _ in held_out], CLASSES)
    own = _crossed([case for case, _ in held_out])
    sites, off = _heads(arguments.root, arguments.templates, arguments.work)
    strangers = {
        "other heads": [places for places, _ in sites],
        "25 mm off": off,
        "noise": _pictures(_noise(), arguments.work / "noise"),
        "lung nodules": _pictures(_nodules(arguments.root), arguments.work / "nodules"),
    }
    distances = [one["distance"] for one in own]
    flagged = float(np.mean([one["p_value"] < ALPHA for one in own]))
    told = {"held out": {"cases": len(own), "flagged": round(flagged, 4)}}
    for name, cases in strangers.items():
        far = [_distance(whole, places) for places in cases]
        truth = [0] * len(distances) + [1] * len(far)
        low = [(whole.unlike_training(places) or {})["p_value"] < ALPHA for places in cases]
        told[name] = {
            "cases": len(cases),
            "auroc": round(float(roc_auc_score(truth, distances + far)), 4),
            "flagged": round(float(np.mean(low)), 4),
        }
    known_sites = [(places, real) for places, real in sites if real is not None]
    reviewed = [(whole.review(places) or {}, real) for places, real in known_sites]
    write_json(
        arguments.results,
        {
            "bundle": BUNDLE,
            "unlike_training": told,
            "expected_dice": _ranked(whole, own, [real for _, real in held_out], reviewed),
        },
    )


def _held_out(root: Path, work: Path) -> list[tuple[KnownCase, float]]:
    """Held-out cases, and the Dice of the whole hippocampus."""
    data, output = f"{BUNDLE}={root / 'hippocampus'}", work / "held_out"
    segment(data, BUNDLE, output, fold=0, calibration="off")
    found = []
    for case in load_manifest(data).held_out(0):
        mask = _labels(output / case.id / f"{case.id}_seg.nii.gz")
        reference = _labels(Path(case.labels[0]))
        of_class = {
            slug: float(dice(mask == k, reference == k)) for k, slug in enumerate(CLASSES, start=1)
        }
        places = _places(output / case.id)
        known = KnownCase(case.patient, places, of_class, dict.fromkeys(CLASSES, True))
        found.append((known, float(dice(mask > 0, reference > 0))))
    return found


def _crossed(cases: Sequence[KnownCase]) -> list[dict[str, Any]]:
    """What a fit to other patients tells of each case."""
    found: list[dict[str, Any]] = [{}] * len(cases)
    for others, own in crossed([case.patient for case in cases]):
        triage = fit_triage([cases[i] for i in others], CLASSES)
        for i in own:
            places = cases[i].places
            p = (triage.unlike_training(places) or {})["p_value"]
            review = triage.review(places) or {}
            inside = [
                low <= cases[i].dice[slug] <= high
                for slug in CLASSES
                for low, high in [review["expected_dice"][slug]["interval"]]
            ]
            distance = _distance(triage, places)
            found[i] = {
                "p_value": p,
                "review": review,
                "inside": inside,
                "distance": distance,
                "above": _above(triage, review),
            }
    return found


def _above(triage: Triage, review: dict[str, Any]) -> float:
    """How much above the mean of its fit a Dice is expected, in log-odds; mean over the classes.

    The means of fits to other patients alone would rank the cases in reverse.
    """
    each = [
        log_odds(review["expected_dice"][slug]["dice"]) - one.level
        for slug, one in triage.dice.items()
    ]
    return float(np.mean(each))


def _distance(triage: Triage, places: Places) -> float:
    assert triage.familiarity is not None
    return max(triage.familiarity.distance(place) for place in places)


def _ranked(
    whole: Triage,
    own: Sequence[dict[str, Any]],
    real: Sequence[float],
    reviewed: Sequence[tuple[dict[str, Any], float]],
) -> dict[str, Any]:
    """Rank correlations of what is expected with the real Dice, and how often intervals hold."""

    def correlation(of: Sequence[tuple[float, float]]) -> float:
        return round(float(spearmanr(*zip(*of, strict=True)).statistic), 4)

    held = list(zip([one["review"] for one in own], real, strict=True))
    both = [*held, *reviewed]
    of_held = list(zip([one["above"] for one in own], real, strict=True))
    of_heads = [(_above(whole, review), dice) for review, dice in reviewed]
    intervals = [one for case in own for one in case["inside"]]
    return {
        "held_out": {
            "cases": len(held),
            "rank_correlation": correlation(of_held),
            "intervals_hold": round(float(np.mean(intervals)), 4),
            "real": round(float(np.mean(real)), 4),
        },
        "other_heads": {
            "cases": len(reviewed),
            "expected": round(float(np.mean([_expected(r) for r, _ in reviewed])), 4),
            "score": round(float(np.mean([r["score"] for r, _ in reviewed])), 4),
            "real": round(float(np.mean([d for _, d in reviewed])), 4),
        },
        "pooled": {
            "cases": len(both),
            "rank_correlation_of_expected": correlation([*of_held, *of_heads]),
            "rank_correlation_of_score": correlation([(r["score"], d) for r, d in both]),
        },
    }


def _expected(review: dict[str, Any]) -> float:
    return float(np.mean([one["dice"] for one in review["expected_dice"].values()]))


def _heads(
    root: Path, templates: Sequence[Path], work: Path
) -> tuple[list[tuple[Places, float | None]], list[Places]]:
    """Both hippocampi of whole heads, with their Dice; and places that are off them."""
    rng, sites, off = np.random.default_rng(0), [], []
    for head in heads(root, templates):
        file = work / "heads" / f"{head.name}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = np.asarray(head.image.dataobj, np.float32)
        nib.save(nib.Nifti1Image(image, head.image.affine), file)
        segment(file, BUNDLE, work / "sites")
        folder, real = work / "sites" / head.name, None
        if head.labels is not None:
            reference = np.isin(np.asarray(head.labels.dataobj), list(SIDES.values()))
            real = float(dice(_labels(folder / f"{head.name}_seg.nii.gz") > 0, reference))
        sites.append((_places(folder), real))
        boxes = read_json(folder / f"{head.name}_run.json")["location"]["box_mm"]
        centres = [np.mean(box, axis=0) for box in boxes.values()]
        for number in range(PER_HEAD):
            step = rng.normal(size=3)
            where = centres[number % 2] + OFF_MM * step / np.linalg.norm(step)
            at = ",".join(f"{value:.1f}" for value in where)
            output = work / "off" / str(number)
            if not segment(file, BUNDLE, output, at=at):
                off.append(_places(output / head.name))
        logger.info("%s: Dice %s", head.name, real)
    return sites, off


def _noise() -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    for number in range(NOISE):
        noise = rng.normal(size=(36, 50, 36))
        yield (ndimage.gaussian_filter(noise, 1.5) if number % 2 else noise).astype(np.float32)


def _nodules(root: Path) -> Iterator[NDArray[np.float32]]:
    """Slices of nodules as volumes of equal slices."""
    cases = load_manifest(f"lidc={root / 'lidc'}").cases
    for case in cases[:: len(cases) // NODULES][:NODULES]:
        image = np.asarray(nib.load(case.images[0]).dataobj, np.float32).squeeze()
        plane = image if image.ndim == 2 else image[..., image.shape[2] // 2]
        yield np.repeat(plane[8:56, 8:56, None], 36, axis=2)


def _pictures(images: Iterator[NDArray[np.float32]], work: Path) -> list[Places]:
    work.mkdir(parents=True, exist_ok=True)
    found = []
    for number, image in enumerate(images):
        nib.save(nib.Nifti1Image(image, np.eye(4)), work / f"{number}.nii.gz")
        segment(work / f"{number}.nii.gz", BUNDLE, work / "out")
        found.append(_places(work / "out" / str(number)))
    return found


def _places(folder: Path) -> Places:
    return tuple(read_json(folder / f"{folder.name}_run.json")["features"])


def _labels(path: Path) -> NDArray[Any]:
    return np.asarray(nib.load(path).dataobj)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triaged_cases")
    add, default = parser.add_argument, os.environ.get("MEDSEGDIFF_DATA", "../shared/data")
    add("--root", type=Path, default=Path(default), help="folder of the real sets")
    add("--templates", type=Path, nargs="*", default=[], help="further heads, without labels")
    add("--work", type=Path, required=True, help="folder for the segmented cases")
    add("--results", type=Path, default=RESULTS)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
