"""Deformations move voxels as far as told, and image and mask alike."""

import numpy as np
import pytest
import torch

from medsegdiff.data.deformation import random_deformation

SIZES = [(48, 40), (32, 28, 24)]
STILL = {"rotation": 0.0, "scaling": 0.0, "translation": 0.0}


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_voxels_move_as_far_as_told(size: tuple[int, ...]) -> None:
    axes = [torch.arange(n, dtype=torch.float32) for n in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    deform = random_deformation(["image"], len(size), displacement=1.5, modes=["bilinear"], **STILL)
    deform.set_random_state(0)  # type: ignore[attr-defined]
    inner = (slice(None), *[slice(6, -6)] * len(size))
    moved = []
    for _ in range(20):
        came_from = torch.as_tensor(deform({"image": places})["image"])
        moved.append((came_from - places)[inner].square().mean().item())
    # The magnitude is uniform in [0, 2 displacement]: its mean square is 4/3 of the displacement's.
    expected = 4.0 / 3.0 * 1.5**2
    assert 0.5 * expected < np.mean(moved) < 1.5 * expected


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_image_and_mask_are_deformed_alike_and_by_the_seed(size: tuple[int, ...]) -> None:
    label = torch.zeros(1, *size)
    label[(0, *[slice(n // 4, -n // 4) for n in size])] = 1.0
    pair = {"image": label.clone(), "label": label}
    deform = random_deformation(["image", "label"], len(size), modes=["nearest", "nearest"])
    made = []
    for seed in (0, 0, 1):
        deform.set_random_state(seed)  # type: ignore[attr-defined]
        made.append(deform(dict(pair)))
        assert torch.equal(torch.as_tensor(made[-1]["image"]), torch.as_tensor(made[-1]["label"]))
    masks = [torch.as_tensor(one["label"]) for one in made]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], label) and set(masks[0].unique().tolist()) == {0.0, 1.0}


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 or 3"):
        random_deformation(["image"], 4)
