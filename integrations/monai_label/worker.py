"""Segments for the app of MONAI Label: reads a request a line, answers each with a line.

MONAI Label and medsegdiff need versions of libraries that exclude each other, so this runs in
the environment of medsegdiff and ``main.py`` in that of MONAI Label. It lives on between requests,
since the import of the libraries takes longer than a segmentation.

A request is JSON: ``{"describe": BUNDLE}``, or ``{"image": PATH, "bundle": BUNDLE, "output": PATH,
"settings": {KEY: VALUE}, "voxels": [[I, J, K], ...]}``. Without voxels, the bundle finds its
structures itself. An answer is JSON too; it has the key ``error`` where the request failed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.bundle import load_bundle
from medsegdiff.cases import segment
from medsegdiff.core import InputError, UsageError
from medsegdiff.data.images import read_image
from medsegdiff.data.manifest import class_slug


def main() -> None:
    """Answer until there are no more requests; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer to a request; an error is part of it, so that the next one can be answered."""
    try:
        if "describe" in request:
            return describe(request["describe"])
        return segmented(**request)
    except (InputError, UsageError) as error:
        return {"error": str(error)}


def describe(bundle: str) -> dict[str, Any]:
    """Name and task of a bundle, its classes, their names in files, and whether it takes points."""
    found = load_bundle(bundle)
    classes = {name: value for value, name in found.labels.items() if value}
    settings = found.parser("inference", {}).config
    return {
        "name": found.root.name,
        "task": found.metadata["task"],
        "labels": classes,
        "in_files": {name: class_slug(name) for name in classes},
        "at_points": bool(settings.get("place_mm")),
    }


def segmented(
    image: str,
    bundle: str,
    output: str,
    settings: Mapping[str, Any],
    voxels: Sequence[Sequence[float]] = (),
) -> dict[str, Any]:
    """Segment an image, around voxels if any are given; the answer is the folder of its files."""
    chosen = {**settings, "at": points_in_mm(image, voxels)} if len(voxels) else dict(settings)
    failures = segment(image, bundle, output, **chosen)
    if failures:
        return {"error": "; ".join(failures.values())}
    (record,) = Path(output).glob("*/*_run.json")
    return {"folder": str(record.parent)}


def points_in_mm(image: str, voxels: Sequence[Sequence[float]]) -> str:
    """Points in RAS+ mm, as ``--at`` takes them.

    Args:
        image: Path of an image file.
        voxels: Indices of voxels, 0 first, in the order of the file's axes.
    """
    _, geometry = read_image(Path(image))
    points = np.asarray(voxels, float) @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    return ";".join(",".join(f"{value:.3f}" for value in point) for point in points)


if __name__ == "__main__":
    main()
