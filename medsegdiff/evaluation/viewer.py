"""Volumes for the report's three-plane viewer, and the viewer's own code.

The viewer is NiiVue, which the package ``nilearn`` carries. It is read when the report is written,
so that the page needs no network.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medsegdiff.evaluation.case_view import CaseView
from medsegdiff.evaluation.gallery import VARIANCE_TOP
from medsegdiff.viz.pictures import COLOURS, grey_range

VOXELS = 1_000_000
"""Greatest number of voxels embedded; larger volumes are cropped to the marks, then thinned."""

DIFFERENCES = {
    1: ("missed", "#ff4d4d"),
    2: ("too much", "#ff5cf4"),
    3: ("another class", "#ffffff"),
}
"""Value in a map of differences -> its name, and a colour that no class uses."""

THINNEST = 3
"""Least number of slices of a volume that the viewer shows."""

_MARGIN_MM = 20.0
_SCRIPT = Path("_assets", "js", "niivue.umd.js")


@cache
def niivue() -> str | None:
    """NiiVue's code as a classic script, gzipped, in base64; None if it is not installed.

    The script defines a global ``niivue``.
    """
    spec = find_spec("nilearn")
    script = Path(spec.origin).parent / _SCRIPT if spec and spec.origin else None
    if script is None or not script.is_file():
        return None
    return _packed(script.read_bytes())


def is_volume(shown: CaseView) -> bool:
    """Whether the viewer can show a case, which photographs and single planes cannot."""
    shape = shown.geometry.shape
    return len(shape) == 3 and min(shape) >= THINNEST and shown.image.ndim == 3


def volumes(shown: CaseView, labels: Mapping[int, str]) -> dict[str, Any]:
    """The data of a case for the viewer, ready for JSON.

    Args:
        shown: Case for which :func:`is_volume` holds.
        labels: Value of each foreground class -> its name.

    Returns:
        ``image``, ``mask``, ``reference``, ``differences`` and, where known, ``variance``: NIfTI
        files, gzipped, in base64, of one byte per voxel; ``variance_top``: the end of its scale;
        ``labels``: a list of value, name and colour; ``spot``: a point in RAS+ millimetres whose
        slices have the greatest error and variance; ``thinned``: the number of voxels along each
        axis that one shown voxel stands for.
    """
    part, step = _part(shown)
    affine = shown.geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [axis.start for axis in part]
    affine[:3, :3] *= step
    low, high = grey_range(shown.image, 3)
    scaled = (np.nan_to_num(shown.image[part].astype(np.float64)) - low) / (high - low)
    top = VARIANCE_TOP[len(labels) > 1]
    told: dict[str, Any] = {
        "image": _nifti(np.clip(scaled * 255, 0, 255), affine),
        "mask": _nifti(shown.seg[part], affine),
        "reference": _nifti(shown.reference[part], affine),
        "differences": _nifti(differences(shown.seg[part], shown.reference[part]), affine),
        "variance_top": top,
        "labels": [
            {"value": value, "name": name, "colour": COLOURS[i % len(COLOURS)]}
            for i, (value, name) in enumerate(labels.items())
        ],
        "spot": _spot(shown),
        "thinned": step,
    }
    if shown.variance is not None:
        bytes_ = np.clip(shown.variance[part] / top * 255, 0, 255).round()
        told["variance"] = _nifti(bytes_, affine, slope=top / 255)
    return told


def _part(shown: CaseView) -> tuple[tuple[slice, slice, slice], int]:
    """The part of a volume that is embedded, and the step between its embedded voxels."""
    shape = shown.geometry.shape
    low, high = np.zeros(3, int), np.array(shape)
    if np.prod(shape) > VOXELS:
        marked = (shown.seg > 0) | shown.annotations.any(axis=0)
        found = [np.flatnonzero(marked.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
        if len(found[0]):
            around = np.ceil(_MARGIN_MM / np.array(shown.geometry.spacing)).astype(int)
            low = np.maximum([f[0] for f in found] - around, 0)
            high = np.minimum([f[-1] + 1 for f in found] + around, shape)
    step = 1
    while np.prod(-(-(high - low) // step)) > VOXELS:
        step += 1
    x, y, z = (slice(int(a), int(b), step) for a, b in zip(low, high, strict=True))
    return (x, y, z), step


def differences(seg: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Differences of two label maps as values of :data:`DIFFERENCES`; 0 where they agree.

    >>> differences(np.uint8([0, 1, 1, 2]), np.uint8([1, 1, 0, 1])).tolist()
    [1, 0, 2, 3]
    """
    wrong = np.where(seg == 0, 1, np.where(reference == 0, 2, 3))
    return np.where(seg == reference, 0, wrong).astype(np.uint8)


def _spot(shown: CaseView) -> list[float]:
    score = shown.doubtful
    voxel = [
        int(score.sum(axis=tuple({0, 1, 2} - {a}), dtype=np.float64).argmax()) for a in range(3)
    ]
    affine = shown.geometry.affine
    return [round(float(mm), 3) for mm in affine[:3, :3] @ voxel + affine[:3, 3]]


def _nifti(array: NDArray[Any], affine: NDArray[np.float64], slope: float | None = None) -> str:
    image = nib.Nifti1Image(array.astype(np.uint8), affine)
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    return _packed(image.to_bytes())


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")
