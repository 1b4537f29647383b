"""Level 0: the closed vocabularies and the few shapes of data that every level shares.

Symbols, one spelling everywhere: ``x_0`` clean mask, ``x_t`` noisy mask, ``t`` time step,
``eps`` noise, ``v`` velocity, ``alphas_cumprod`` (the papers' alpha-bar), ``eta``.

Shapes: ``(B, C, *spatial)`` images, ``(B, K, *spatial)`` masks of K classes (background is
class 0), ``(B * N, K, *spatial)`` the N ensemble members of B images, members of one image side
by side. ``*spatial`` is two or three axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float32", "bfloat16", "auto"]
"""Precision of the networks' arithmetic."""

Target = Literal["eps", "x_0", "v"]
"""Meaning of the denoiser's output: the noise, the clean mask (as logits), or the velocity."""

Compilation = Literal["off", "default", "reduce-overhead"]
"""Mode of ``torch.compile`` for the networks; ``reduce-overhead`` records CUDA graphs."""

Fusion = Literal["mean", "majority", "staple", "step_uncertainty"]
"""Rule that makes one mask of the members of an ensemble."""

ScalingMethod = Literal["none", "temperature", "vector"]
"""How an ensemble's probability is calibrated: not at all, by one temperature, or by a temperature
and a bias a class."""

ScalingChoice = Literal["auto", "none", "temperature", "vector"]
"""A method of scaling, or ``auto``: the best that helps patients left out."""

CalibrationUse = Literal["auto", "off"]
"""Use of a bundle's calibration: applied where there is one, or never."""

Uneven = Literal["refuse", "resample"]
"""Treatment of a DICOM series whose slices are not evenly spaced."""

EngineName = Literal["local", "ray"]
"""Where cases are done: in this process, or on a cluster."""

Locate = Literal["auto", "off"]
"""Whether the places of structures are searched for in a scan that is larger than expected."""

Features = dict[str, dict[str, float]]
"""What is measured of a case: ``geometry``, ``intensity`` or ``ensemble`` -> feature -> value."""

OutputFormat = str
"""Name of a format that a segmentation can be written in: see ``cases.output_formats``."""

UNKNOWN_CLASS = 255
"""Class number of voxels whose class is not known, such as all of an image without a mask."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the world of DICOM, ITK and NRRD (left, posterior, superior) to that of NIfTI (right,
anterior, superior), and back."""

LengthUnit = Literal["mm", "pixel"]
"""Unit of lengths in an image."""

Form = tuple[NDArray[np.float64], int]
"""A NIfTI spatial form: 4 x 4 voxel -> RAS+ millimetres, and its code (0: not set)."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where an image lies in the world, exactly as its file says.

    Attributes:
        shape: Spatial shape of the file, two or three axes.
        affine: Matrix (4, 4) float64, voxel index -> RAS+ millimetres.
        sform: Sform of the NIfTI header and its code; None for other formats.
        qform: Qform of the NIfTI header and its code; None for other formats.
        sources: Files that the geometry was read from (all instances of a DICOM series).
        notes: Sentences on what is unusual about the image, or was changed in reading it.
        unit: Unit of the world: of a photograph without a spacing, pixels.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    sform: Form | None = None
    qform: Form | None = None
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    unit: LengthUnit = "mm"

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in millimetres, one value a spatial axis."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres (a 2D image counts as one millimetre thick).

        The axes may be oblique to each other, as in a tilted DICOM series: the Gram determinant
        is the squared volume that they span, or area.
        """
        axes = self.affine[:3, : len(self.shape)]
        return float(np.sqrt(np.linalg.det(axes.T @ axes))) / 1000.0
