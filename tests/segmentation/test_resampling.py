"""Slab by slab comes out what MONAI makes of the whole, there and back."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, Spacingd

from medsegdiff.core.errors import InputError, surfacing_input_errors
from medsegdiff.core.storage import slabs
from medsegdiff.data.transforms import restore
from medsegdiff.segmentation import resampling
from medsegdiff.segmentation.resampling import SlabResample, resample_by_slabs

SPLINES = {"mode": 3, "padding_mode": "constant"}
WAYS: list[dict[str, Any]] = [
    {},
    {"mode": "nearest"},
    {"padding_mode": "zeros"},
    {"padding_mode": "reflection"},
    {"align_corners": True},
    {"diagonal": True},
    SPLINES,
]


def there_and_back(chain: Compose, dims: int) -> tuple[Any, ...]:
    """A resampled image, and a map and labels of it on the image's own grid."""
    torch.manual_seed(0)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:dims, :dims] = torch.tensor([[0.0, -0.8, 0], [0.1, 0, 1.1], [1.3, 0.05, 0]])[
        [0, 2, 1] if dims == 2 else [0, 1, 2]
    ][:dims, :dims]
    affine[:dims, -1] = torch.tensor([3.0, -7.0, 11.0])[:dims]
    size = (23, 31, 17)[:dims]
    image = MetaTensor(torch.randn(2, *size), affine=affine, meta={"spatial_shape": size})
    found = chain({"image": image})["image"]
    plain = found.as_tensor()
    back = restore(plain[:1], found, chain)
    labels = restore((plain[:1] > 0).float(), found, chain, mode="nearest")
    return found, torch.as_tensor(back), torch.as_tensor(labels)


@pytest.mark.parametrize(
    ("way", "dims"), [*((w, 2) for w in WAYS if w != SPLINES), *((w, 3) for w in WAYS)], ids=str
)
def test_slabs_give_what_monai_gives(
    way: dict[str, Any], dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chain() -> Compose:
        codes = "RAS"[:dims]
        spacing = Spacingd("image", (1.0, 1.5, 0.9)[:dims], **way)
        return Compose([Orientationd("image", codes, labels=None), spacing])

    expected = there_and_back(chain(), dims)
    monkeypatch.setattr(resampling, "SLAB", 50)
    monkeypatch.setattr(resampling, "slabs", partial(slabs, voxels=300 if dims == 3 else 60))
    found = there_and_back(resample_by_slabs(chain()), dims)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.as_subclass(torch.Tensor), theirs.as_subclass(torch.Tensor))
    torch.testing.assert_close(found[0].affine, expected[0].affine)
    assert len(found[0].applied_operations) == len(expected[0].applied_operations)


def test_a_large_image_goes_in_slabs_and_a_small_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        seen.append(1)
        return slabs(*arguments, **options)

    monkeypatch.setattr(resampling, "slabs", counted)
    chain = resample_by_slabs(Compose([Spacingd("image", (1.0, 1.0, 1.5))]))
    assert isinstance(chain.transforms[0].spacing_transform.sp_resample, SlabResample)
    there_and_back(chain, 3)
    assert not seen
    monkeypatch.setattr(resampling, "SLAB", 50)
    there_and_back(chain, 3)
    assert len(seen) == 3  # the image, the map, the labels


def test_a_grid_beyond_the_limit_is_refused() -> None:
    affine = torch.diag(torch.tensor([1000.0, 1000, 1000, 1], dtype=torch.float64))
    image = MetaTensor(torch.zeros(1, 50, 50, 50), affine=affine)
    chain = resample_by_slabs(Compose([Spacingd("image", (1.0, 1.0, 1.0))]))
    with pytest.raises(InputError, match="network's grid: would take"), surfacing_input_errors():
        chain({"image": image})
