"""Slab by slab comes out what MONAI makes of the whole, there and back."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
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


@pytest.mark.parametrize("dims", [2, 3])
def test_a_moved_grid_begins_at_the_voxel_that_was_named(dims: int) -> None:
    rng = np.random.default_rng(0)
    affine = np.eye(dims + 1)
    affine[:-1] = rng.normal(size=(dims, dims + 1))
    start = list(range(2, 2 + dims))
    moved = resampling._moved(affine, start)
    for voxel in np.ndindex((2,) * dims):
        np.testing.assert_allclose(
            moved @ [*voxel, 1.0], affine @ [*(np.array(voxel) + start), 1.0]
        )
    assert moved is not affine and not np.shares_memory(moved, affine)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_box_that_is_needed_holds_what_is_reached_and_little_more(dims: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    to_source = np.eye(dims + 1)
    to_source[:-1, :-1] = rng.normal(size=(dims, dims))
    to_source[:-1, -1] = rng.uniform(10, 30, dims)
    extent, size = rng.integers(2, 6, dims), [40] * dims
    box = resampling._needed(to_source, extent.tolist(), size)
    corners = np.array([to_source @ [*c, 1.0] for c in np.ndindex(*extent)])[:, :-1]
    for part, low, high in zip(box, corners.min(axis=0), corners.max(axis=0), strict=True):
        # a spline or a line between voxels takes its values from the neighbours
        assert part.start == min(max(np.floor(low) - 2, 0), 38)
        assert part.stop == min(max(np.ceil(high) + 3, part.start + 2), 40)


@pytest.mark.parametrize(("at", "expected"), [(-50.0, slice(0, 2)), (50.0, slice(7, 9))])
def test_a_grid_beside_the_source_needs_two_voxels_of_its_border(
    at: float, expected: slice
) -> None:
    to_source = np.eye(3)
    to_source[:2, 2] = at
    assert resampling._needed(to_source, [3, 3], [9, 9]) == [expected] * 2
    assert resampling._needed(to_source, [3, 3], [1, 1]) == [slice(0, 1)] * 2


def info(**changed: Any) -> dict[str, Any]:
    return {"mode": "bilinear", "align_corners": False, **changed}


@pytest.mark.parametrize(
    ("size", "scale", "known", "large"),
    [
        ((10, 11), 1.0, info(), True),
        ((11, 10), 1.0, info(), True),
        ((10, 10), 2.0, info(), True),
        ((10, 10), 1.0, info(), False),  # nothing to do
        ((10, 9), 1.0, info(), False),  # not large, nor is the source
        ((10, 11), 1.0, info(align_corners=True), False),
        ((10, 11), 1.0, info(mode=3), False),
        ((10, 11, 1), 1.0, info(), False),
    ],
)
def test_what_goes_in_slabs(
    size: tuple[int, ...],
    scale: float,
    known: dict[str, Any],
    large: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = 99 if size == (10, 10) else 100
    monkeypatch.setattr(resampling, "SLAB", limit)
    image = MetaTensor(torch.zeros(1, 10, 10), affine=torch.eye(3))
    affine = torch.diag(torch.tensor([scale, 1.0, 1.0]))
    assert resampling._is_large(image, size, known, affine) == large
    larger = MetaTensor(torch.zeros(1, 20, 20), affine=torch.eye(3))
    if not scale > 1 and large:  # a large source counts as well
        assert resampling._is_large(larger, (2, 2), known, affine)


def test_the_meta_data_go_on_with_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "SLAB", 50)
    chain = resample_by_slabs(Compose([Spacingd("image", (1.0, 1.0, 2.0))]))
    image = MetaTensor(torch.zeros(1, 9, 9, 9), affine=torch.eye(4), meta={"told": "so"})
    found = chain({"image": image})["image"]
    assert found.meta["told"] == "so" and found.dtype == torch.float32
    np.testing.assert_allclose(found.pixdim, [1.0, 1.0, 2.0])
    assert [one["class"] for one in found.applied_operations] == ["SlabResample"]
    back = chain.inverse({"image": found})["image"]
    assert back.applied_operations == [] and back.meta["told"] == "so"
    assert tuple(back.shape) == (1, 9, 9, 9) and torch.equal(back.affine, torch.eye(4).double())


def test_the_size_of_all_channels_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float]] = []
    monkeypatch.setattr(resampling, "check_size", lambda *given: seen.append(given))
    chain = resample_by_slabs(Compose([Spacingd("image", (1.0, 0.5, 1.0))]))
    chain({"image": MetaTensor(torch.zeros(3, 4, 5, 6), affine=torch.eye(4))})
    assert seen == [("the image on the network's grid", 4.0 * 3 * 4 * 9 * 6)]
