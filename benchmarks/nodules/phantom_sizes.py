"""Are clicked nodules as large as they are, whatever the pixels and slices of the scan?

Balls of known diameters in a generated chest are clicked on, about a millimetre beside their
centres, and segmented with the bundle, which brings places of unusual pixels to the size of its
training's; and once more without.

python -m benchmarks.nodules.phantom_sizes
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.nodules.chest_phantom import Nodule, chest
from medsegdiff.cases import segment
from medsegdiff.core import read_json, write_json

logger = logging.getLogger("benchmarks")

RESULTS = Path("benchmarks/results/nodule_phantom_sizes.json")
BUNDLE = "lung_nodule_ct"
NODULES = (
    Nodule((-85.0, 25.0, 0.0), 3.0),
    Nodule((-80.0, -35.0, 12.0), 5.0),
    Nodule((-65.0, 55.0, -12.0), 8.0),
    Nodule((80.0, 15.0, 0.0), 12.0),
    Nodule((75.0, -35.0, 10.0), 20.0),
    Nodule((75.0, 55.0, -5.0), 30.0),
)
GRIDS = ((0.7, 2.5), (0.5, 2.5), (0.9, 2.5), (0.7, 5.0), (0.75, 2.5))
"""Size of the pixels, and distance of the slices, in mm."""
UNUSUAL = ((0.9, 2.5), (0.64, 2.5))
"""Grids that the bundle resamples."""
CHEST_MM = (340.0, 250.0, 90.0)
CLICK_MM = 1.0
"""Standard deviation of a click along each axis."""


def click(nodules: Sequence[Nodule], seed: int) -> dict[str, Any]:
    """A markups file of 3D Slicer with a point near the centre of each nodule."""
    rng = np.random.default_rng(seed)
    points = [
        {
            "label": f"{nodule.diameter:g}-mm",
            "position": [float(c + rng.normal(0.0, CLICK_MM)) for c in nodule.centre],
        }
        for nodule in nodules
    ]
    return {"markups": [{"coordinateSystem": "RAS", "controlPoints": points}]}


def diameter(volume_ml: float) -> float:
    """Diameter in mm of the ball of a volume.

    >>> round(diameter(4 / 3 * math.pi), 6)
    20.0
    """
    return float((6000.0 * volume_ml / math.pi) ** (1 / 3))


def found_diameters(
    nodules: tuple[Nodule, ...], pixel_mm: float, slice_mm: float, folder: Path, **settings: Any
) -> list[dict[str, float]]:
    """True and found diameters in mm of the nodules of a generated chest.

    Args:
        nodules: Nodules of different diameters.
        pixel_mm: Size of the pixels.
        slice_mm: Distance of the slices.
        folder: Empty folder for the scan and the masks.
        settings: Settings of the bundle.
    """
    x, y, z = (
        round(mm / s) for mm, s in zip(CHEST_MM, (pixel_mm, pixel_mm, slice_mm), strict=True)
    )
    image, affine = chest(nodules, pixel_mm, slice_mm, (x, y, z))
    nib.save(nib.Nifti1Image(image, affine), folder / "chest.nii.gz")
    write_json(folder / "clicks.mrk.json", click(nodules, seed=0))
    options = {"at": str(folder / "clicks.mrk.json"), "device": "cpu", **settings}
    failed = segment(folder / "chest.nii.gz", BUNDLE, folder / "out", **options)
    if failed:
        raise RuntimeError(str(failed))
    location = read_json(folder / "out" / "chest" / "chest_run.json")["location"]
    rows = []
    for nodule in nodules:
        name = f"{nodule.diameter:g}-mm" if len(nodules) > 1 else ""
        low, high = location["volume_interval_90_ml"][name]["nodule"]
        rows.append(
            {
                "true_mm": nodule.diameter,
                "found_mm": round(diameter(location["volume_ml"][name]["nodule"]), 2),
                "least_mm": round(diameter(low), 2),
                "greatest_mm": round(diameter(high), 2),
            }
        )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each way and diameter: found over true diameter, over the pixel sizes of one thickness."""
    found: dict[str, Any] = {}
    for way in {row["way"]: None for row in rows}:
        of_way = [row for row in rows if row["way"] == way]
        for true in sorted({row["true_mm"] for row in of_way}):
            ratios = [
                row["found_mm"] / true
                for row in of_way
                if row["true_mm"] == true and row["slice_mm"] == GRIDS[0][1]
            ]
            found.setdefault(way, {})[f"{true:g} mm"] = {
                "mean_ratio": round(float(np.mean(ratios)), 3),
                "least_ratio": round(min(ratios), 3),
                "greatest_ratio": round(max(ratios), 3),
            }
    return found


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; writes and returns the result."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodules.phantom_sizes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(words)
    rows: list[dict[str, Any]] = []
    never: dict[str, Any] = {"pixel_range_mm": [0.0, 10.0]}
    ways: list[tuple[str, Any, dict[str, Any]]] = [("bundle", grid, {}) for grid in GRIDS]
    ways += [("never resampled", grid, never) for grid in UNUSUAL]
    result: dict[str, Any] = {}
    for way, (pixel_mm, slice_mm), settings in ways:
        with tempfile.TemporaryDirectory() as folder:
            found = found_diameters(NODULES, pixel_mm, slice_mm, Path(folder), **settings)
        grid = {"way": way, "pixel_mm": pixel_mm, "slice_mm": slice_mm}
        rows += [{**grid, **row} for row in found]
        result = {"summary": summary(rows), "rows": rows}
        write_json(arguments.results, result)
        logger.info("%s: %s", grid, found)
    print(json.dumps(result["summary"], indent=1))
    return result


if __name__ == "__main__":
    main()
