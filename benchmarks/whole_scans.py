"""Whole heads through a bundle that learned from crops: are both hippocampi found, and how well?

Each head is segmented as it is, stored in other orientations, at other voxel sizes, and turned. The
references there have values of the nearest voxel, which costs Dice: the answer for the head as it
is, brought to the other grids as the image was, tells how much (`dice_carried`). Every answer is
also brought back to the head's own grid, whose reference is as it was drawn (`dice_back`).

python -m benchmarks.whole_scans --templates /usr/share/mricron/templates/ch2.nii.gz
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medsegdiff.cases import segment
from medsegdiff.core import read_json, write_json
from medsegdiff.metrics import dice

logger = logging.getLogger("benchmarks")

RESULTS = Path("benchmarks/results/whole_scans.json")
BUNDLE = "hippocampus_mr"
SIDES = {"left": 48, "right": 47}
"""Labels of the hippocampi in the label maps of the heads."""
AS_IT_IS = "as it is"
ORIENTATIONS = ("PIR", "ASL", "SLP")
SPACINGS_MM = (0.7, 2.0)
TURNED = "turned 20 degrees"
TURN = np.eye(4)
TURN[:3, :3] = Rotation.from_euler("xz", (20.0, 5.0), degrees=True).as_matrix()
FAR_MM = 10.0
"""Distance between the centres of a piece and of its hippocampus from which it is elsewhere."""
Row = dict[str, Any]
Change = Callable[[nib.Nifti1Image], nib.Nifti1Image]


@dataclass(frozen=True)
class Head:
    """A whole head.

    Attributes:
        name: Name of the head.
        image: Image.
        labels: Label map with ``SIDES``; None: not known.
    """

    name: str
    image: nib.Nifti1Image
    labels: nib.Nifti1Image | None


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = _parse(words)
    rows = [
        row
        for head in heads(arguments.root, arguments.templates)
        for row in _rows(head, arguments.variants)
    ]
    write_json(arguments.results, {"summary": summary(rows), "heads": rows})


def heads(root: Path, templates: Sequence[Path]) -> Iterator[Head]:
    """The heads with labels, then ICBM152 of nilearn and further ones without."""
    from nilearn.datasets import load_mni152_template

    for file in sorted((root / "whole_head").glob("*_SS.nii.gz")):
        labels = file.with_name(file.name.replace("_SS", "_glm"))
        yield Head(file.name.removesuffix("_SS.nii.gz"), nib.load(file), nib.load(labels))
    yield Head("icbm152", load_mni152_template(resolution=1), None)
    for file in templates:
        yield Head(file.name.removesuffix(".nii.gz"), nib.load(file), None)


def changes() -> dict[str, Change]:
    """Variant -> what makes it of an image: as it is, and stored or lying otherwise."""
    found: dict[str, Change] = {AS_IT_IS: lambda one: one}
    found |= {
        f"stored {axcodes}": partial(_reoriented, axcodes=axcodes) for axcodes in ORIENTATIONS
    }
    found |= {f"{mm:g} mm": partial(_resampled, mm=mm) for mm in SPACINGS_MM}
    return found | {TURNED: lambda one: _resampled(_turned(one), 1.0)}


def changed(head: Head, change: Change) -> Head:
    """A variant of a head."""
    labels = None if head.labels is None else change(head.labels)
    return Head(head.name, change(head.image), labels)


def _reoriented(image: nib.Nifti1Image, axcodes: str) -> nib.Nifti1Image:
    now = nib.io_orientation(image.affine)
    wanted = nib.orientations.axcodes2ornt(tuple(axcodes))
    return image.as_reoriented(nib.orientations.ornt_transform(now, wanted))


def _resampled(image: nib.Nifti1Image, mm: float) -> nib.Nifti1Image:
    """On a grid along the world's axes; labels, which are whole numbers, by the nearest voxel."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in image.shape[:3]])).reshape(3, -1)
    world = image.affine[:3, :3] @ corners + image.affine[:3, 3:]
    low, high = world.min(axis=1), world.max(axis=1)
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = low
    shape = tuple(int(n) for n in np.ceil((high - low) / mm) + 1)
    whole = (
        np.issubdtype(image.get_data_dtype(), np.integer) and np.asarray(image.dataobj).max() < 255
    )
    return resample_from_to(image, (shape, affine), order=0 if whole else 1)


def _turned(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asarray(image.dataobj), TURN @ image.affine)


def _brought_back(answer: nib.Nifti1Image, name: str, head: Head) -> Any:
    """Mask in the grid of the head as it is of the probability that was found in a variant."""
    if name == TURNED:
        answer = nib.Nifti1Image(np.asarray(answer.dataobj), np.linalg.inv(TURN) @ answer.affine)
    back = resample_from_to(answer, (head.image.shape[:3], head.image.affine), order=1)
    return np.asarray(back.dataobj) > 0.5


def _rows(head: Head, wanted: Sequence[str] | None) -> Iterator[Row]:
    foreground = None
    for name, change in changes().items():
        if wanted and name not in wanted:
            continue
        one = changed(head, change)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{head.name}.nii.gz"
            nib.save(
                nib.Nifti1Image(np.asarray(one.image.dataobj, np.float32), one.image.affine), file
            )
            failed = segment(file, BUNDLE, Path(folder) / "out")
            row: Row = {"head": head.name, "variant": name}
            if failed:
                row["failed"] = next(iter(failed.values()))
            else:
                case = Path(folder) / "out" / head.name
                row |= _judged(case, one)
                answer = _foreground(case)
                if name == AS_IT_IS:
                    foreground = answer
                if head.labels is not None:
                    mask, reference = _brought_back(answer, name, head), _reference(head.labels)
                    row["dice_back"] = round(float(dice(mask, reference)), 4)
                    row["volume_ratio_back"] = round(float(mask.sum() / reference.sum()), 4)
            if foreground is not None and one.labels is not None:
                mask = np.asarray(change(foreground).dataobj) > 0.5
                row["dice_carried"] = round(float(dice(mask, _reference(one.labels))), 4)
        logger.info("%s", row)
        yield row


def _foreground(case: Path) -> nib.Nifti1Image:
    """Probability of any structure, in memory."""
    maps = [nib.load(file) for file in case.glob("*_mean_*.nii.gz")]
    return nib.Nifti1Image(sum(one.get_fdata(dtype=np.float32) for one in maps), maps[0].affine)


def _reference(labels: nib.Nifti1Image) -> Any:
    return np.isin(np.asarray(labels.dataobj), list(SIDES.values()))


def _judged(case: Path, head: Head) -> Row:
    record = read_json(case / f"{case.name}_run.json")
    seg = nib.load(case / f"{case.name}_seg.nii.gz")
    mask = np.asarray(seg.dataobj) > 0
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    row: Row = {
        "pieces": int(count),
        "volume_ml": round(float(mask.sum() * abs(np.linalg.det(seg.affine[:3, :3]))) / 1000, 3),
        "score": record["location"]["score"],
        "seconds": {key: round(value, 2) for key, value in record["seconds"].items()},
        "peak_memory_mb": round(record["peak_memory_mb"]),
    }
    if head.labels is None:
        return row
    labels, reference = np.asarray(head.labels.dataobj), _reference(head.labels)
    centres = [_centre(labels == value, seg.affine) for value in SIDES.values()]
    found = [_centre(pieces == k, seg.affine) for k in range(1, count + 1)]
    apart = np.linalg.norm(np.array(found)[:, None] - np.array(centres), axis=2)
    row["located"] = bool((apart.min(axis=0) < FAR_MM).all())
    row["elsewhere"] = int((apart.min(axis=1) >= FAR_MM).sum())
    row["dice"] = round(float(dice(mask, reference)), 4)
    row["volume_ratio"] = round(float(mask.sum() / reference.sum()), 4)
    return row


def _centre(mask: Any, affine: Any) -> Any:
    return affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]


def summary(rows: Sequence[Row]) -> dict[str, Row]:
    """Means and worst figures of each variant."""
    found: dict[str, Row] = {}
    for name in dict.fromkeys(row["variant"] for row in rows):
        of = [row for row in rows if row["variant"] == name]
        known = [row for row in of if "dice" in row]
        found[name] = {
            "heads": len(of),
            "failed": sum("failed" in row for row in of),
            "two_pieces": sum(row.get("pieces") == 2 for row in of),
            "located": f"{sum(row['located'] for row in known)} of {len(known)}",
            "elsewhere": sum(row["elsewhere"] for row in known),
            "dice": _mean(row["dice"] for row in known),
            "least_dice": min((row["dice"] for row in known), default=None),
            "dice_carried": _mean(row["dice_carried"] for row in known if "dice_carried" in row),
            "dice_back": _mean(row["dice_back"] for row in known if "dice_back" in row),
            "volume_ratio": _mean(row["volume_ratio"] for row in known),
            "volume_ratio_back": _mean(
                row["volume_ratio_back"] for row in known if "volume_ratio_back" in row
            ),
            "seconds": max(row["seconds"]["total"] for row in of if "seconds" in row),
            "peak_memory_mb": max(row["peak_memory_mb"] for row in of if "seconds" in row),
        }
    return found


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return round(float(np.mean(known)), 4) if known else None


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_scans")
    add, default = parser.add_argument, os.environ.get("MEDSEGDIFF_DATA", "../shared/data")
    add("--root", type=Path, default=Path(default), help="folder of the real sets")
    add("--templates", type=Path, nargs="*", default=[], help="further heads, without labels")
    add("--variants", type=lambda text: text.split(","), help="some of them, with commas")
    add("--results", type=Path, default=RESULTS)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
