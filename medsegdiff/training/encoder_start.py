"""Initial weights of a segmenter's encoder, from a denoiser of images."""

from __future__ import annotations

import torch
from torch import Tensor

from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.networks.image_denoiser import ImageDenoiser

TIME = 0.3
"""Time of the denoiser's features; from 0.2 to 0.7 the hippocampus' Dice differed by 0.005."""
LEAST_SCALE = 0.05
"""Least scale that is folded into the weights before a leaky ReLU; it has to be positive."""

State = dict[str, Tensor]


def encoder_weights(
    denoiser: ImageDenoiser, encoder: ImageEncoder, time: float = TIME
) -> dict[str, Tensor]:
    """Weights with which an encoder has the features of the denoiser at one time.

    Args:
        denoiser: Denoiser trained on images of as many channels as the encoder takes, stride 1.
        encoder: Encoder with the same ``channels`` and ``depths``.
        time: Time in [0, 1] at which the denoiser is taken.

    Returns:
        A state for ``encoder.load_state_dict(..., strict=False)``: all weights but the head's.

    Raises:
        ValueError: a weight does not fit; the message names the first.
    """
    wanted = encoder.state_dict()
    given = {k: v for k, v in folded(denoiser, time).items() if not k.startswith("head.")}
    for name, value in given.items():
        if name not in wanted or wanted[name].shape != value.shape:
            has = tuple(wanted[name].shape) if name in wanted else "none"
            raise ValueError(
                f"the encoder must have the denoiser's channels and depths: {name} is "
                f"{tuple(value.shape)} there. Got {has}."
            )
    missing = [k for k in wanted if k not in given and not k.startswith("head.")]
    if missing:
        raise ValueError(
            f"the encoder must have the denoiser's channels and depths. Got {missing[0]} besides."
        )
    return given


@torch.no_grad()
def folded(denoiser: ImageDenoiser, time: float) -> State:
    """The state of the denoiser's U-Net, with the scales and shifts at one time in its weights.

    Scales and shifts are those of an image of mean 0 and deviation 1. On the way down they go into
    the block itself, on the way up into the convolution that follows. A shift before a convolution
    that a normalisation follows has no effect. So the U-Net's output is that of the denoiser,
    except at borders, where padding is not shifted, and for scales below ``LEAST_SCALE``.

    Args:
        denoiser: Trained denoiser of images.
        time: Time in [0, 1].
    """
    unet, levels = denoiser.unet, len(denoiser.unet.channels)
    state = {name: value.clone() for name, value in unet.state_dict().items()}
    weight = denoiser.brightness.weight
    mean = weight.new_zeros(1, weight.shape[1] // 2)
    modulations = denoiser.modulations(weight.new_tensor([time]), mean, mean + 1.0)
    flat = [(scale[0], shift[0]) for scale, shift in modulations]
    for level, (scale, shift) in enumerate(flat[:levels]):
        _fold_down(state, level, scale.clamp_min(LEAST_SCALE), shift)
    for block, (scale, shift) in enumerate(flat[levels:]):
        level = levels - 2 - block
        _fold_input(state, f"lateral.{level - 1}" if level else "head", scale, shift)
    return state


def _fold_down(state: State, level: int, scale: Tensor, shift: Tensor) -> None:
    """Fold scale and shift (C,) into a block of the way down."""
    block = f"down.{level}"
    norms = [name for name in state if name.startswith(f"{block}.layers.") and "bias" in name]
    norm = max(norms, key=lambda name: int(name.split(".")[3])).removesuffix(".bias")
    short_cut = f"{block}.short_cut"
    residual = len(norms) > 1
    if residual and f"{short_cut}.weight" not in state:
        return  # the block's input is added without a convolution
    for name in (f"{norm}.weight", f"{norm}.bias"):
        state[name] *= scale
    if residual:
        state[f"{short_cut}.weight"] *= _along(scale, state[f"{short_cut}.weight"], 0)
        state[f"{short_cut}.bias"] = state[f"{short_cut}.bias"] * scale + shift
        return
    following = f"down.{level + 1}.short_cut"
    if f"{following}.weight" in state:
        state[f"{following}.bias"] += _constant(state[f"{following}.weight"], shift)


def _fold_input(state: State, name: str, scale: Tensor, shift: Tensor) -> None:
    """Fold scale and shift (I,) of its input into a convolution."""
    weight = state[f"{name}.weight"]
    state[f"{name}.bias"] += _constant(weight, shift)
    state[f"{name}.weight"] = weight * _along(scale, weight, 1)


def _constant(weight: Tensor, value: Tensor) -> Tensor:
    """Output (O,) of a convolution (O, I, *kernel) for a constant input (I,)."""
    return weight.flatten(2).sum(dim=2) @ value


def _along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """Values (C,), reshaped to broadcast along one axis of a tensor."""
    return values.view([-1 if a == axis else 1 for a in range(like.ndim)])
