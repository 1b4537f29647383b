"""What a training step of a diffusion of images is made of."""

from typing import Any

import pytest
import torch

from medsegdiff.core.types import UNKNOWN_CLASS
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.networks.image_denoiser import ImageDenoiser
from medsegdiff.training.prepare_images import NoisedImagePrepareBatch, Part, channels_of


def network(seen: int, drawn: int, labels: int = 0) -> ImageDiffusion:
    denoiser = ImageDenoiser(2, seen, drawn, (8, 8), num_labels=labels)
    return ImageDiffusion(denoiser, GaussianProcess(n_timesteps=50))


def batch() -> dict[str, Any]:
    return {
        "image": torch.randn(4, 1, 8, 8),
        "label": torch.randint(3, (4, 1, 8, 8)),
        "kind": [0, 1, 1, 0],
    }


def test_image_and_mask_are_noised_together() -> None:
    model, items = network(4, 4), batch()
    prepare = NoisedImagePrepareBatch(model, noised=("image", "mask"), num_classes=3)
    x_0, target, args, further = prepare(items)
    assert x_0.shape == (4, 4, 8, 8) and args == ()
    assert torch.equal(x_0[:, :1], items["image"])
    assert torch.equal(x_0[:, 1:].argmax(dim=1, keepdim=True), items["label"])
    assert set(x_0[:, 1:].unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(target, model.target(x_0, further["eps"], further["t"]))
    assert model(x_0, *args, **further).shape == target.shape


def test_mask_is_given_clean() -> None:
    model, items = network(4, 1), batch()
    prepare = NoisedImagePrepareBatch(model, given=("mask",), num_classes=3)
    x_0, _, _, further = prepare(items)
    assert x_0.shape == (4, 1, 8, 8)
    assert torch.equal(further["given"].argmax(dim=1, keepdim=True), items["label"])
    assert model(x_0, **further).shape == x_0.shape


def test_voxels_of_unknown_class_are_0_in_all_channels() -> None:
    items = batch()
    items["label"][:2] = UNKNOWN_CLASS
    items["label"][2, :, :4] = UNKNOWN_CLASS
    given = channels_of(("mask",), items["image"], items["label"], 3)
    assert given is not None
    assert not given[:2].any() and not given[2, :, :4].any()
    assert set(given[2, :, 4:].unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(given[3].argmax(dim=0), items["label"][3, 0])


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_given_masks_are_left_out_as_often_as_told(dropout: float) -> None:
    prepare = NoisedImagePrepareBatch(
        network(4, 1), given=("mask",), num_classes=3, mask_dropout=dropout
    )
    items = batch()
    given = prepare(items)[3]["given"]
    assert given.any().item() == (dropout == 0.0)
    assert (items["label"] < 3).all()  # the batch itself stays as it was


def test_an_unknown_mask_cannot_be_noised() -> None:
    prepare = NoisedImagePrepareBatch(network(4, 4), noised=("image", "mask"), num_classes=3)
    items = batch()
    items["label"][0] = UNKNOWN_CLASS
    with pytest.raises(ValueError, match="must be known"):
        prepare(items)


@pytest.mark.parametrize(("dropout", "labels"), [(0.0, [0, 1, 1, 0]), (1.0, [2, 2, 2, 2])])
def test_labels_are_left_out_as_often_as_told(dropout: float, labels: list[int]) -> None:
    model = network(1, 1, labels=2)
    prepare = NoisedImagePrepareBatch(model, label_key="kind", label_dropout=dropout)
    assert prepare(batch())[3]["label"].tolist() == labels


def test_times_cover_the_process() -> None:
    t = NoisedImagePrepareBatch(network(1, 1))(batch())[3]["t"]
    assert sorted((4 * t // 50).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("parts", [("mask",), ("picture",)])
def test_wrong_parts_are_refused(parts: tuple[Part, ...]) -> None:
    with pytest.raises(ValueError, match="part"):
        channels_of(parts, torch.zeros(1, 1, 4, 4), None, 3)


def test_wrong_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="label_dropout"):
        NoisedImagePrepareBatch(network(1, 1), label_dropout=1.5)
