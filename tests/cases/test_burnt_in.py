"""What a case's pictures show are its own masks and volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medsegdiff.calibration.fitted import ClassGuarantee
from medsegdiff.cases.burnt_in import grey_image, lines_of, outlines_of
from medsegdiff.core.types import Geometry
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.writers.segments import Algorithm, segments_of

SEGMENTS = segments_of({0: "background", 1: "Left part"})
ALGORITHM = Algorithm("tiny", "1.2")


def segmented() -> SegmentedCase:
    """Ten cubic voxels of 1 ml in a row; two members, of 4 and 6 voxels."""
    members = np.zeros((2, 10, 1, 1), np.uint8)
    members[0, :4], members[1, :6] = 1, 1
    inside = members.mean(axis=0, dtype=np.float32)
    mean = np.stack([1 - inside, inside])
    return SegmentedCase(
        geometry=Geometry((10, 1, 1), np.diag([10.0, 10.0, 10.0, 1.0])),
        image=np.arange(10, dtype=np.float32).reshape(1, 10, 1, 1),
        mask=members[1],
        mean=mean,
        variance=mean * (1 - mean),
        entropy=mean[0],
        anchor=None,
        members=members,
        seconds={},
    )


def test_the_members_disagreement_is_dashed_and_the_mask_is_not() -> None:
    case = segmented()
    band, mask = outlines_of(case, SEGMENTS, {})
    assert band.dashed and not mask.dashed and band.colour == mask.colour == SEGMENTS[0].rgb
    np.testing.assert_array_equal(np.flatnonzero(band.inside), [4, 5])
    np.testing.assert_array_equal(mask.inside, case.mask == 1)
    text = [line.text for line in lines_of(case, SEGMENTS, {}, ALGORITHM)]
    assert "RESEARCH" in text[0] and "tiny 1.2" in text[0]
    assert text[1] == "Left part: 6 ml (90 % of members 4.1 to 5.9 ml)"
    assert "disagree" in text[2]


def test_a_guarantee_shows_its_own_masks_and_volumes() -> None:
    case = segmented()
    guarantee = {"left-part": ClassGuarantee(0.9, 0.3, 0.25, (0.0, 0.5, 1.0))}
    outer, inner, mask = outlines_of(case, SEGMENTS, guarantee)
    assert outer.dashed and inner.dashed and not mask.dashed
    assert (outer.inside.sum(), inner.inside.sum()) == (6, 4)
    text = " ".join(line.text for line in lines_of(case, SEGMENTS, guarantee, ALGORITHM))
    low, high = guarantee["left-part"].volume(case.mean[1])
    assert high is not None and f"guaranteed at 75%: {low:.3g} to {high:.3g} ml" in text
    says_nothing = {"left-part": replace(guarantee["left-part"], inner=None, outer=0.0)}
    drawn = outlines_of(case, SEGMENTS, says_nothing)
    assert [int(one.inside.sum()) for one in drawn] == [0, 6]


def test_grey_has_one_scale_and_survives_what_is_not_finite() -> None:
    case = segmented()
    grey = grey_image(case)
    assert grey.shape == (10, 1, 1, 3) and (grey[..., 0] == grey[..., 2]).all()
    assert (np.diff(grey[:, 0, 0, 0].astype(int)) > 0).all() and grey.max() == 255
    case.image[0, 3] = np.nan
    assert grey_image(case)[9, 0, 0, 0] == 255
