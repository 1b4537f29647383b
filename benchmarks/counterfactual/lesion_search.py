"""Where counterfactuals find lesions: AUROC, what is left on healthy images, calibration.

python -m benchmarks.counterfactual --output benchmarks/results
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, roc_auc_score

from medsegdiff.bundle import load_bundle
from medsegdiff.core import read_json, write_json, write_text
from medsegdiff.counterfactual import (
    Counterfactual,
    CounterfactualMaker,
    fit_differences,
    probabilities,
)
from medsegdiff.data import Case, datalist, load, load_manifest
from medsegdiff.metrics import reliability
from medsegdiff.phantoms import write_lesion_cohort
from medsegdiff.viz import save_png

NAME = "counterfactual"
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"level": 0.3},
    {"level": 0.5},
    {"level": 0.9},
    {"guidance": 1.0},
    {"guidance": 6.0},
    {"encoding": "noise", "draws": 4},
    {"encoding": "noise", "draws": 1},
)
"""Changes of the bundle's own settings; the first are those as shipped."""


@dataclasses.dataclass(frozen=True)
class ImageLook:
    """A case, and what was made of it.

    Attributes:
        image: Image (X, Y), standardised.
        lesion: Mask (X, Y) of what at least so many raters marked as asked for.
        healthy: Counterfactual (X, Y).
        difference: Map (X, Y) of the difference, in standard deviations of the image.
        diseased: Whether the case counts as diseased.
    """

    image: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    healthy: NDArray[np.float32]
    difference: NDArray[np.float32]
    diseased: bool


def looked_at(
    maker: CounterfactualMaker, cases: Sequence[Case], healthy_up_to: int = 0, marked_by: int = 1
) -> list[ImageLook]:
    """Counterfactuals of all planes of cases; those between healthy and diseased are left out."""
    found = []
    for item in datalist(cases):
        loaded = load(maker.preprocessing, item)
        image = torch.as_tensor(loaded["image"].as_tensor())
        label = np.asarray(loaded["label"]) > 0
        maps = maker.maps(image, str(item["case"]))
        images = image[0].numpy()
        planes = range(images.shape[2]) if images.ndim == 3 else [None]
        for z in planes:
            at: Any = (..., z) if z is not None else ...
            annotations = label[at] if z is not None else label
            raters = int(annotations.any(axis=(1, 2)).sum())
            if healthy_up_to < raters < marked_by:
                continue
            votes = annotations.sum(axis=0)
            lesion = votes >= max(1, marked_by - 1) if marked_by > 1 else votes > 0
            found.append(
                ImageLook(
                    images[at],
                    lesion,
                    maps.healthy[0].numpy()[at],
                    maps.difference.numpy()[at],
                    raters >= marked_by,
                )
            )
    return found


def summed_up(found: Sequence[ImageLook]) -> dict[str, float]:
    """AUROC over all pixels and by diseased image, and the differences by what is there."""
    diseased = [one for one in found if one.diseased and one.lesion.any()]
    healthy = [one for one in found if not one.diseased]
    every = np.concatenate([one.difference.ravel() for one in found])
    truth = np.concatenate([one.lesion.ravel() for one in found])
    on_healthy = np.concatenate([one.difference.ravel() for one in healthy])
    on_lesions = np.concatenate([one.difference[one.lesion] for one in diseased])
    own = [roc_auc_score(one.lesion.ravel(), one.difference.ravel()) for one in diseased]
    plain = [
        roc_auc_score(one.lesion.ravel(), abs(one.image - np.median(one.image)).ravel())
        for one in diseased
    ]
    greatest = [float(np.percentile(one.difference, 99)) for one in found]
    return {
        "images": len(found),
        "diseased": len(diseased),
        "auroc": float(roc_auc_score(truth, every)),
        "auroc_by_image": float(np.mean(own)),
        "auroc_of_intensity_by_image": float(np.mean(plain)),
        "auroc_of_images": float(roc_auc_score([one.diseased for one in found], greatest)),
        "mean_on_healthy": float(on_healthy.mean()),
        "percentile_95_on_healthy": float(np.percentile(on_healthy, 95)),
        "mean_on_lesions": float(on_lesions.mean()),
    }


def calibrated(fitting: Sequence[ImageLook], unseen: Sequence[ImageLook]) -> dict[str, float]:
    """ECE and Brier score on cases not used to fit."""
    scaling = fit_differences([o.difference for o in fitting], [o.lesion for o in fitting])
    difference = np.concatenate([one.difference.ravel() for one in unseen])
    truth = np.concatenate([one.lesion.ravel() for one in unseen])
    result = {}
    for name, how in (("before", None), ("after", scaling)):
        chance = probabilities(difference, how)[1]
        result[f"ece_{name}"] = float(reliability(chance, truth.astype(np.float64)).ece)
        result[f"brier_{name}"] = float(brier_score_loss(truth, chance))
    return result | {"fitted_to": len(fitting), "unseen": len(unseen)}


def maker_of(bundle: str, changes: dict[str, Any], folder: Path) -> CounterfactualMaker:
    """The bundle's maker, with other settings."""
    given = {"output_dir": str(folder), "device": "$torch.device('cpu')", **changes}
    parser = load_bundle(bundle).parser("counterfactual", given)
    maker: CounterfactualMaker = parser.get_parsed_content("maker")
    return maker


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure the phantom, or another bundle on its data's held-out fold."""
    options = parsed(words)
    file = options.output / f"{NAME}.json"
    result: dict[str, Any] = read_json(file) or {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = options.data or write_lesion_cohort(folder, cases=options.cases, seed=1)
        manifest = load_manifest(data)
        cases = manifest.split(0)[1] if options.data else manifest.cases
        cases = cases[: options.cases]
        rule = {"healthy_up_to": options.healthy_up_to, "marked_by": options.marked_by}
        rows = []
        for changes in SETTINGS if options.settings else SETTINGS[:1]:
            raters = {"raters": manifest.raters}
            maker = maker_of(options.bundle, changes | raters, folder / "out")
            found = looked_at(maker, cases, **rule)
            rows.append({"changed": changes, **summed_up(found)})
            print(rows[-1], flush=True)
            if not changes:
                shipped = found
        entry = {
            "command": "python -m benchmarks.counterfactual " + shlex.join(words or sys.argv[1:]),
            "settings": _settings(maker_of(options.bundle, {}, folder / "out").make),
            "rows": rows,
            "calibration": calibrated(shipped[: len(shipped) // 2], shipped[len(shipped) // 2 :]),
        }
    result[options.bundle if not options.data else manifest.name] = entry
    write_json(file, result)
    write_text(options.output / f"{NAME}.md", page(result))
    name = NAME if not options.data else f"{NAME}_{manifest.name}"
    some = [one for one in shipped if one.diseased][:4]
    some += [one for one in shipped if not one.diseased][:2]
    save_png(shown(some), options.output / f"{name}.png")
    return result


def _settings(made: Counterfactual) -> dict[str, Any]:
    names = ("level", "steps", "guidance", "encoding", "draws")
    return {name: getattr(made, name) for name in names}


HEAD = (
    "| changed | AUROC, pixels | by image | of images | on healthy (95th perc.) | on lesions |",
    "| --- | --- | --- | --- | --- | --- |",
)


def page(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Counterfactuals"]
    for name, entry in result.items():
        lines += [f"## {name}", f"`{entry['command']}`", "", *HEAD]
        lines += [_line(row) for row in entry["rows"]]
        first, fit = entry["rows"][0], entry["calibration"]
        shipped = ", ".join(f"{key} {value}" for key, value in entry["settings"].items())
        plain = first["auroc_of_intensity_by_image"]
        lines += [
            "",
            f"{first['images']} planes, {first['diseased']} diseased. As shipped: {shipped}.",
            "Differences are in standard deviations of the image. How far a pixel's intensity is",
            f"from the image's median, by itself, has an AUROC of {plain:.3f} by image.",
            "",
            f"Calibration fitted to {fit['fitted_to']} planes, on the {fit['unseen']} others:",
            f"ECE {fit['ece_before']:.3f} before, {fit['ece_after']:.3f} after; Brier score",
            f"{fit['brier_before']:.3f}, {fit['brier_after']:.3f}.",
            "",
        ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    cells = [", ".join(f"{k} {v}" for k, v in row["changed"].items()) or "as shipped"]
    cells += [f"{row[key]:.3f}" for key in ("auroc", "auroc_by_image", "auroc_of_images")]
    cells += [f"{row['mean_on_healthy']:.3f} ({row['percentile_95_on_healthy']:.3f})"]
    return "| " + " | ".join([*cells, f"{row['mean_on_lesions']:.3f}"]) + " |"


def shown(found: Sequence[ImageLook]) -> Figure:
    """Image, counterfactual, difference and lesion of a few planes."""
    figure = Figure(figsize=(2 * len(found), 6.2), layout="constrained")
    grid = figure.subplots(3, len(found), squeeze=False)
    for column, one in enumerate(found):
        for row, values in enumerate((one.image, one.healthy, one.difference)):
            axes = grid[row][column]
            limits = {"vmin": 0, "vmax": 1} if row == 2 else {"vmin": -2, "vmax": 2.5}
            axes.imshow(values.T, cmap="magma" if row == 2 else "gray", **limits)
            if one.lesion.any():
                axes.contour(one.lesion.T, [0.5], colors="tab:cyan", linewidths=1)
            axes.axis("off")
        grid[0][column].set_title("diseased" if one.diseased else "healthy", fontsize=9)
    return figure


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.counterfactual", description=__doc__
    )
    parser.add_argument("--bundle", default="phantom_counterfactual")
    parser.add_argument("--data", help="its held-out fold; without it, new phantoms")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--healthy-up-to", type=int, default=0, help="raters")
    parser.add_argument(
        "--marked-by", type=int, default=1, help="raters that marked a diseased one"
    )
    parser.add_argument("--settings", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)
