"""Voxels are drawn one image at a time, and perceptrons learn from them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from medsegdiff.few_label.fit_perceptrons import DrawnVoxels, draw_voxels, fit_mlps
from medsegdiff.few_label.voxel_mlps import VoxelMLPs

SIZES = [(20, 24), (12, 10, 14)]


def ball(size: tuple[int, ...]) -> Tensor:
    """(1, *size) label map of a small cube."""
    axes = torch.meshgrid(*[torch.arange(n) for n in size], indexing="ij")
    inside = [(axis >= 4) & (axis < 7) for axis in axes]
    return torch.stack(inside).all(dim=0)[None].to(torch.uint8)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_a_voxel_comes_with_its_own_features(size: tuple[int, ...]) -> None:
    """Features that tell the place, so that what is drawn can be looked up."""
    label, number = ball(size), torch.arange(ball(size).numel()).float().view(1, *size)
    count = label.numel() // 2
    generator = torch.Generator().manual_seed(0)
    voxels = draw_voxels([(number / 1024, label)], lambda image: image, count, generator)
    places = (1024.0 * voxels.features[:, 0].float()).round()
    assert len(voxels.classes) == count and voxels.features.dtype == torch.float16
    order = places.argsort()
    near = (places[order] - number.flatten()[places[order].long()]).abs().max()
    assert float(near) <= 1.0  # half precision
    exact = draw_voxels([(label.float(), label)], lambda image: image, count, generator)
    assert torch.equal(exact.features[:, 0].long(), exact.classes)


def test_voxels_are_different_and_half_of_them_near() -> None:
    label = torch.zeros(1, 40, 40, dtype=torch.uint8)
    label[0, 10:14, 10:14] = 1
    x, y = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    voxels = draw_voxels([(torch.stack([x, y]), label)], lambda image: image, 160)
    assert len(torch.unique(voxels.features, dim=0)) == 160
    inside = ((voxels.features >= 7) & (voxels.features < 17)).all(dim=1)  # 3 voxels around
    assert int(inside.sum()) >= 80
    few = draw_voxels([(torch.stack([x, y]), label)], lambda image: image, 10_000)
    assert len(few.classes) == 1600


def test_images_are_taken_one_at_a_time() -> None:
    held: list[int] = []

    def items() -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(5):
            held.append(number)
            yield torch.full((1, 20, 20), float(number)), ball((20, 20))

    def features(image: Tensor) -> Tensor:
        assert held[-1] == int(image[0, 0, 0])  # the next is not made before this one is used
        return image

    voxels = draw_voxels(items(), features, 30)
    assert voxels.features[:, 0].unique().tolist() == [0, 1, 2, 3, 4]


def test_perceptrons_learn_what_no_line_divides() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 2, generator=generator)
    classes = (features.prod(dim=1) > 0).long() + (features.square().sum(dim=1) > 4).long()
    torch.manual_seed(0)
    mlps = VoxelMLPs(2, 3, members=3, hidden=(32, 16), dropout=0.0)
    voxels = DrawnVoxels(features.half(), classes)
    loss = fit_mlps(mlps, voxels, 300, batch=256, learning_rate=1e-2, generator=generator)
    right = (mlps(features).argmax(dim=-1) == classes).float().mean(dim=1)
    assert not mlps.training and loss < 0.25 and float(right.min()) > 0.9
