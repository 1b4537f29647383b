"""What the pictures of a case show: its image in grey, outlines in colour, volumes as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medsegdiff.calibration.fitted import ClassGuarantee
from medsegdiff.cases.run_record import volumes_of
from medsegdiff.data.manifest import class_slug
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.viz.pictures import grey_range
from medsegdiff.viz.slice_picture import Line, Outline
from medsegdiff.writers.segments import Algorithm, Segment

DISAGREEMENT = 0.09
"""Variance from which members are shown to disagree: that of one in ten that differs."""


def grey_image(case: SegmentedCase) -> NDArray[np.uint8]:
    """The first channel (*shape, 3) in grey, on one scale for all slices."""
    values = case.image[0]
    low, high = grey_range(values, values.ndim)
    grey = np.clip((np.nan_to_num(values) - low) * (255.0 / (high - low)), 0, 255)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


def outlines_of(
    case: SegmentedCase, segments: Sequence[Segment], guarantee: Mapping[str, ClassGuarantee]
) -> list[Outline]:
    """Of each class the mask, and dashed the guarantee's two masks, else where members disagree.

    An outer mask that is the whole image, as of a guarantee that says nothing, has no outline.
    """
    found = []
    for one in segments:
        if guarantee:
            inner, outer = guarantee[class_slug(one.name)].masks(case.mean[one.value])
            found += [Outline(mask, one.rgb, True) for mask in (outer, inner) if not mask.all()]
        else:
            found.append(Outline(case.variance[one.value] > DISAGREEMENT, one.rgb, True))
    return found + [Outline(case.mask == one.value, one.rgb) for one in segments]


def lines_of(
    case: SegmentedCase,
    segments: Sequence[Segment],
    guarantee: Mapping[str, ClassGuarantee],
    algorithm: Algorithm,
) -> list[Line]:
    """Whose work it is, the volume of each class with its interval, and what the lines mean."""
    volumes = volumes_of(case, {one.value: one.name for one in segments})
    lines = [Line(f"RESEARCH, not for diagnosis: {algorithm.name} {algorithm.version}")]
    for one in segments:
        slug = class_slug(one.name)
        low, high = volumes[slug]["interval_90"]
        text = f"{one.name}: {volumes[slug]['ensemble']:.3g} ml"
        text += f" (90 % of members {low:.3g} to {high:.3g} ml)" if len(case.members) > 1 else ""
        lines.append(Line(text, one.rgb))
        if guarantee:
            lines.append(Line(_promise(case, one, guarantee[slug]), one.rgb))
    if guarantee:
        return [*lines, Line("Solid: mask. Dashed: inner and outer mask of the guarantee")]
    if len(case.members) > 1:
        dashed = f"Dashed: members disagree (variance above {DISAGREEMENT})"
        return [*lines, Line(f"Solid: mask. {dashed}")]
    return lines


def _promise(case: SegmentedCase, segment: Segment, guarantee: ClassGuarantee) -> str:
    low, high = guarantee.volume(case.mean[segment.value])
    unit = case.geometry.voxel_ml
    to = "no upper limit" if high is None else f"{high * unit:.3g} ml"
    return f"    guaranteed at {1 - guarantee.alpha:.0%}: {low * unit:.3g} to {to}"
