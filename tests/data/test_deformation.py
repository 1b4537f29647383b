"""Deformations move voxels as far as told, and image and mask alike."""

import numpy as np
import pytest
import torch
from monai.transforms import Affine

from medsegdiff.data.deformation import RandomDeformationd

SIZES = [(48, 40), (32, 28, 24)]
STILL = {"rotation": 0.0, "scaling": 0.0, "translation": 0.0}


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_voxels_move_as_far_as_told(size: tuple[int, ...]) -> None:
    axes = [torch.arange(n, dtype=torch.float32) for n in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    deform = RandomDeformationd(["image"], len(size), displacement=1.5, modes=["bilinear"], **STILL)
    deform.set_random_state(0)
    inner: tuple[slice, ...] = (slice(6, -6),) * len(size)
    moved = []
    for _ in range(20):
        came_from = torch.as_tensor(deform({"image": places})["image"])
        moved.append((came_from - places).square()[(slice(None), *inner)].mean().item())
    # The magnitude is uniform in [0, 2 displacement]: its mean square is 4/3 of the displacement's.
    expected = 4.0 / 3.0 * 1.5**2
    assert 0.5 * expected < np.mean(moved) < 1.5 * expected


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_image_and_mask_are_deformed_alike_and_by_the_seed(size: tuple[int, ...]) -> None:
    label = torch.zeros(1, *size)
    middle: tuple[slice, ...] = tuple(slice(n // 4, -n // 4) for n in size)
    label[(slice(None), *middle)] = 1.0
    pair = {"image": label.clone(), "label": label}
    deform = RandomDeformationd(["image", "label"], len(size), modes=["nearest", "nearest"])
    made = []
    for seed in (0, 0, 1):
        deform.set_random_state(seed)
        made.append(deform(dict(pair)))
        assert torch.equal(torch.as_tensor(made[-1]["image"]), torch.as_tensor(made[-1]["label"]))
    masks = [torch.as_tensor(one["label"]) for one in made]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], label) and set(masks[0].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_affine_part_is_that_of_monai(size: tuple[int, ...]) -> None:
    image = torch.randn(1, *size).cumsum(1).cumsum(2)
    deform = RandomDeformationd(["image"], len(size), displacement=0.0, modes=["bilinear"])
    deform.set_random_state(0)
    found = deform({"image": image})["image"]
    deform.set_random_state(0)
    deform.randomize(None)
    affine = Affine(affine=deform._affine(), padding_mode="border", image_only=True)
    torch.testing.assert_close(found, torch.as_tensor(affine(image)), atol=1e-2, rtol=1e-3)


def test_a_map_that_is_absent_is_left_out_and_none_is_deformed_at_probability_0() -> None:
    image = torch.rand(1, 16, 16)
    deform = RandomDeformationd(["image", "label"], 2)
    assert set(deform({"image": image})) == {"image"}
    still = RandomDeformationd(["image"], 2, prob=0.0, modes=["bilinear"])
    assert still({"image": image})["image"] is image


def test_other_dimensions_and_missing_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 or 3"):
        RandomDeformationd(["image", "label"], 4)
    with pytest.raises(ValueError, match="modes"):
        RandomDeformationd(["image"], 2)
