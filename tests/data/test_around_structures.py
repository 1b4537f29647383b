"""A training image is cut as a locator cuts a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medsegdiff.core.types import UNKNOWN_CLASS
from medsegdiff.data import CropAroundStructuresd


def item(marked: tuple[slice, slice, slice], value: int = 1) -> dict[Any, Any]:
    affine = torch.diag(torch.tensor([1.0, 2.0, 4.0, 1.0]))
    label = torch.zeros(2, 40, 30, 20, dtype=torch.uint8)
    label[1][marked] = value
    image = torch.arange(label[0].numel(), dtype=torch.float32).reshape(1, 40, 30, 20)
    return {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine)}


CROP = CropAroundStructuresd(["image", "label"], size_mm=(20.0, 20.0, 40.0))


def test_the_structures_of_any_rater_and_a_margin_stay() -> None:
    given = item((slice(10, 20), slice(8, 12), slice(0, 4)))
    found = CROP(given)
    assert found["label"].shape == (2, 15 + 1, 8, 6)  # 2.5 voxels, at least 2, or up to the border
    assert int((found["label"] > 0).sum()) == int((given["label"] > 0).sum())
    assert torch.equal(found["image"].as_tensor(), given["image"][:, 7:23, 6:14, 0:6].as_tensor())
    assert np.asarray(found["image"].affine)[:3, 3] == pytest.approx([7.0, 12.0, 0.0])


@pytest.mark.parametrize("value", [0, UNKNOWN_CLASS])
def test_without_a_structure_a_box_of_the_given_size_stays(value: int) -> None:
    found = CROP(item((slice(0, 5), slice(0, 5), slice(0, 5)), value))
    # 40 mm, 60 mm and 80 mm: the shortest axis gets the least
    assert found["image"].shape == (1, 20, 10, 10)
