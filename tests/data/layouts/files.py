"""Small image and label files for the tests of layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image


def save(path: Path, values: Any) -> Path:
    """Write values (X, Y, Z) as NIfTI, or (columns, rows) as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(np.asarray(values), np.eye(4)), path)
    else:
        Image.fromarray(np.asarray(values).swapaxes(0, 1)).save(path)
    return path


def image(seed: int, shape: tuple[int, ...] = (6, 5, 4)) -> Any:
    """Values of an image, different for each seed."""
    return np.random.default_rng(seed).integers(1, 200, shape).astype(np.uint8)


def label(*values: int, shape: tuple[int, ...] = (6, 5, 4)) -> Any:
    """A label map that holds these values and 0."""
    found = np.zeros(shape, np.uint8)
    for row, value in enumerate(values):
        found[row, :2] = value
    return found


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
