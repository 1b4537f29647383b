"""Writes the variance of a class as a DICOM parametric map that refers to its source images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from medsegdiff.core.types import Geometry
from medsegdiff.writers.dicom_derived import EQUIPMENT, highdicom, write_derived
from medsegdiff.writers.segments import Segment

FIRST_SERIES_NUMBER = 9010
"""First series number; each class is a series of its own, since viewers stack a series' objects."""
HIGHEST = 0.25
"""Greatest variance of a probability."""
_ROUNDING = 1e-3

Array = NDArray[Any]


def write_variance_map(
    path: str | Path, variance: Array, geometry: Geometry, segment: Segment
) -> tuple[str, ...]:
    """Write the variance of a class as a parametric map of float32, without scale or offset.

    The stored values are the real world values: quantity "Variance" (UMLS), "no units" (UCUM).

    Args:
        path: Path of the file, ending in ``.dcm``; missing folders are created.
        variance: Variance in [0, 0.25] of shape ``geometry.shape``.
        geometry: Geometry of a DICOM series with its files in ``sources``: one per slice, or one
            multi-frame file.
        segment: Class that the variance is of.

    Returns:
        Notes on fields of the source that were not valid.

    Raises:
        InputError: as for :func:`~medsegdiff.writers.dicom_derived.write_derived`; or highdicom is
            not installed.
        ValueError: the shape or the range of ``variance`` is wrong.
    """
    low, high = float(variance.min()), float(variance.max())
    if not (low >= -_ROUNDING and high <= HIGHEST + _ROUNDING):
        raise ValueError(f"variance must lie in [0, {HIGHEST}]; got {low:g} to {high:g}")
    values = np.clip(variance, 0.0, HIGHEST).astype(np.float32)
    return write_derived(path, values, geometry, partial(_parametric_map, segment=segment))


def _parametric_map(instances: Sequence[Any], frames: Array, *, segment: Segment) -> Any:
    """The parametric map of frames (frames, rows, columns)."""
    hd = highdicom()
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="VARIANCE",
        lut_explanation=f"Variance over members: {segment.name}"[:64],
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, HIGHEST),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.UMLS.Variance,
    )
    window = hd.VOILUTTransformation(
        window_center=HIGHEST / 2,
        window_width=HIGHEST,
        voi_lut_function="LINEAR_EXACT",  # any other function needs a width of 1 or more
    )
    parametric_map = hd.pm.ParametricMap(
        source_images=instances,
        pixel_array=frames,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        contains_recognizable_visual_features=False,
        series_instance_uid=hd.UID(),
        series_number=FIRST_SERIES_NUMBER + segment.value,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        content_label="VARIANCE",
        content_description=f"Variance of the members' probability: {segment.name}"[:64],
        series_description=f"Variance: {segment.name}"[:64],
        **EQUIPMENT,
    )
    # A type 2C attribute of the series, which may be empty: the source does not give it.
    parametric_map.Laterality = instances[0].get("Laterality")
    return parametric_map
