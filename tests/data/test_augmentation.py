"""Random transforms without metadata have the values that they have with it."""

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandFlipd, RandSpatialCropd

from medsegdiff.data import ComposeWithoutMetadata


def chain() -> list[object]:
    keys = ["image", "label"]
    return [
        RandAffined(keys, prob=1.0, rotate_range=[0.5], mode=["bilinear", "nearest"]),
        RandSpatialCropd(keys, [12, 10], random_size=False),
        RandFlipd(keys, prob=0.5, spatial_axis=1),
        RandAdjustContrastd("image", prob=1.0),
    ]


def item() -> dict[str, object]:
    values = torch.arange(20.0 * 18).reshape(1, 20, 18)
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0]))
    return {
        "image": MetaTensor(values, affine=affine),
        "label": MetaTensor((values % 7 > 3).float(), affine=affine),
        "case": "a",
    }


def test_the_values_are_those_with_metadata() -> None:
    for seed in range(5):
        plain = ComposeWithoutMetadata(chain()).set_random_state(seed)(item())
        known = Compose(chain()).set_random_state(seed)(item())
        for key in ("image", "label"):
            assert type(plain[key]) is torch.Tensor
            assert np.array_equal(plain[key].numpy(), known[key].numpy())
        assert plain["case"] == "a"


def test_metadata_are_tracked_again_after_a_call_and_after_an_error() -> None:
    compose = ComposeWithoutMetadata([RandFlipd("image", prob=1.0, spatial_axis=5)])
    assert get_track_meta()
    try:
        compose(item())
    except (RuntimeError, IndexError):
        pass
    else:
        raise AssertionError("an axis that is not there")
    assert get_track_meta()
    kept = item()
    ComposeWithoutMetadata(chain())(kept)
    assert isinstance(kept["image"], MetaTensor)
