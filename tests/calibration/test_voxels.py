"""The voxels that a calibration is fitted to."""

import numpy as np
import pytest

from medsegdiff.calibration.voxels import CaseVoxels, sampled_voxels
from medsegdiff.metrics.calibration_error import region_of_interest


@pytest.mark.parametrize("shape", [(30, 24), (16, 14, 12)])
def test_what_is_to_be_ignored_is_not_among_them(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    foreground = rng.random(shape) * (np.indices(shape)[1] < 8)
    reference = (foreground > 0.5).astype(np.uint8)
    known = np.indices(shape)[0] > 5
    probability = np.stack([1.0 - foreground, foreground])
    share = np.stack([reference == 0, reference == 1]) * known
    roi = [region_of_interest((reference > 0) & known)] * 2

    def voxels(p: np.ndarray) -> CaseVoxels:
        spacing = (1.0,) * len(shape)
        return sampled_voxels("a", "a", p, share, reference, roi, spacing, None, known)

    found = voxels(probability)
    assert found.weight.sum() == pytest.approx(known.sum())
    other = voxels(np.where(known, probability, probability[::-1]))
    for name in ("probability", "share", "reference", "weight", "region", "class_roi"):
        assert np.array_equal(getattr(found, name), getattr(other, name))
