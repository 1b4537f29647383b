"""Level 0: the closed vocabularies and the few shapes of data that every level shares.

Symbols, one spelling everywhere: ``x_0`` clean mask, ``x_t`` noisy mask, ``t`` time step,
``eps`` noise, ``v`` velocity, ``alphas_cumprod`` (the papers' alpha-bar), ``eta``.

Shapes: ``(B, C, *spatial)`` images, ``(B, K, *spatial)`` masks of K classes (background is
class 0), ``(B * N, K, *spatial)`` the N ensemble members of B images, members of one image side
by side. ``*spatial`` is two or three axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float32", "bfloat16", "auto"]
"""Of the networks' arithmetic."""

Target = Literal["eps", "x_0", "v"]
"""What the denoiser's output means: the noise, the clean mask (as logits), or the velocity."""

Compilation = Literal["off", "default", "reduce-overhead"]
"""Of the networks by torch; the last records CUDA graphs."""

Fusion = Literal["mean", "majority", "staple", "step_uncertainty"]
"""How the members of an ensemble become one mask."""

ScalingMethod = Literal["vector", "temperature"]
"""How an ensemble's probability is calibrated."""

CalibrationUse = Literal["auto", "off"]
"""Whether a bundle's calibration is applied: where there is one, or never."""

Uneven = Literal["refuse", "resample"]
"""What becomes of a DICOM series whose slices are not evenly spaced."""

OutputFormat = Literal["nifti", "nrrd", "dicom-seg"]
"""File formats a segmentation can be written in."""

UNKNOWN_CLASS = 255
"""Class number of voxels whose class is not known, such as all of an image without a mask."""

Form = tuple[NDArray[np.float64], int]
"""A NIfTI spatial form: 4 x 4 voxel -> RAS+ millimetres, and its code (0: not set)."""


class InputError(Exception):
    """Something a user gave is not usable.

    Args:
        subject: the file, folder, case or option that is at fault.
        rule: what was expected of it and what came instead.
        remedy: what the user can do about it.
    """

    def __init__(self, subject: object, rule: str, remedy: str) -> None:
        super().__init__(subject, rule, remedy)
        self.subject, self.rule, self.remedy = str(subject), rule, remedy

    def __str__(self) -> str:
        return f"{self.subject}: {self.rule}. {self.remedy}"


class UsageError(InputError):
    """The command itself is wrong (an unknown option, name or key): exit code 2."""


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line without the file's name, which may be a patient's.

    >>> reason_of(InputError("doe.nii", "is empty", "Get it again"))
    'is empty. Get it again'
    >>> reason_of(FileNotFoundError(2, "No such file", "doe.nii"))
    'FileNotFoundError: No such file'
    """
    if isinstance(error, InputError):
        return f"{error.rule}. {error.remedy}"
    words = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {words}".strip().split("\n")[0]


@contextmanager
def needs_extra(subject: str, package: str, extra: str) -> Iterator[None]:
    """Within, a package is imported that comes with an extra of this one.

    Raises:
        InputError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        rule = f"needs the package {package}, which is not installed"
        raise InputError(subject, rule, f"Install it: pip install 'medsegdiff[{extra}]'") from error


@contextmanager
def surfacing_input_errors() -> Iterator[None]:
    """Within, an ``InputError`` that a library wrapped in its own exceptions comes out as it is.

    MONAI's transforms and configurations wrap whatever is raised inside them, and name it as the
    cause.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None or cause is error:
            raise
        raise cause from None


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where an image lies in the world, exactly as its file says.

    Attributes:
        shape: the file's own spatial shape, two or three axes.
        affine: 4 x 4 float64, voxel index -> RAS+ millimetres.
        sform: the NIfTI header's sform and code; None for other formats.
        qform: the NIfTI header's qform and code; None for other formats.
        sources: the files that the geometry was read from (all instances of a DICOM series).
        notes: what is unusual about the image, or was done to it in reading, in words.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    sform: Form | None = None
    qform: Form | None = None
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

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
