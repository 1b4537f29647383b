"""Demonstration on a real volume that comes with a package: both hippocampi of ICBM152."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.cases.job import segment
from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError

BUNDLE = "hippocampus_mr"
CENTRES_MM = {"left": (-26.0, -20.0, -14.0), "right": (26.0, -20.0, -14.0)}
"""Centre of each hippocampus in MNI space (RAS+), in millimetres."""
CROP_MM = (36.0, 52.0, 38.0)
"""Extent of the crops in millimetres, equal to that of the training volumes."""


def demo(output: Path, *, members: int = 16) -> list[Path]:
    """Segment both hippocampi of the ICBM152 T1 template (1 mm, Fonov et al. 2011).

    Args:
        output: Folder for ``input/`` with the two crops, a folder for each case, and
            ``report.html``.
        members: Number of masks drawn for each side.

    Returns:
        Paths of the pictures, and of the page that shows them all.

    Raises:
        InputError: the template's package is missing, or a crop could not be segmented.
    """
    template = load_template()
    crops = []
    for side, centre in CENTRES_MM.items():
        path = output / "input" / f"icbm152_{side}_hippocampus.nii.gz"
        with written_aside(path) as aside:
            nib.save(crop_around(template, centre, CROP_MM), aside)
        crops.append(path)
    failures = segment(crops, load_bundle(BUNDLE), output, members=members, overwrite=True)
    for case, reason in failures.items():
        raise InputError(case, f"could not be segmented ({reason})", "Run it with --debug")
    cases = [path.name.removesuffix(".nii.gz") for path in crops]
    return [output / case / f"{case}_preview.png" for case in cases] + [output / "report.html"]


def load_template() -> nib.Nifti1Image:
    """The ICBM152 T1 template at 1 mm, from the files of the nilearn package.

    Raises:
        InputError: nilearn is not installed.
    """
    try:
        from nilearn.datasets import load_mni152_template
    except ModuleNotFoundError as error:
        raise InputError(
            "nilearn", "is not installed, but it contains the volume", "pip install nilearn"
        ) from error
    return load_mni152_template(resolution=1)


def crop_around(
    image: nib.Nifti1Image, centre_mm: tuple[float, ...], extent_mm: tuple[float, ...]
) -> nib.Nifti1Image:
    """Cut out the part of a volume around a point, on the volume's own grid.

    Args:
        image: Volume (X, Y, Z) with its affine.
        centre_mm: Centre of the part, in RAS+ millimetres.
        extent_mm: Extent of the part along the volume's axes, in millimetres.

    Raises:
        ValueError: the part leaves the volume.
    """
    spacing = np.asarray(image.header.get_zooms()[:3], dtype=float)
    centre = apply_affine(np.linalg.inv(image.affine), centre_mm)
    size = np.rint(np.asarray(extent_mm) / spacing).astype(int)
    start = np.rint(centre - size / 2).astype(int)
    if (start < 0).any() or (start + size > image.shape[:3]).any():
        raise ValueError(f"a part of {size.tolist()} voxels at {start.tolist()} leaves the volume")
    place = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    return image.slicer[place]
