"""The precision that networks compute in: bfloat16 on devices that support it well."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from medsegdiff.core.types import Precision

LEAST_SIDE_IN_BFLOAT16 = 3
"""Least width in voxels for bfloat16 training on CPUs.

Torch's gradient of a bfloat16 convolution on CPUs reads invalid memory for maps 2 voxels wide.
"""


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32 (others only emulate it)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported()) if supported else False
    return False


def resolve(precision: Precision, device: torch.device) -> Precision:
    """The precision that ``auto`` stands for on the device."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def autocast(
    precision: Precision, device: torch.device, learning_at: int | None = None
) -> AbstractContextManager[None]:
    """Context in which networks run with a precision; for float32 it changes nothing.

    Args:
        precision: Precision of the networks.
        device: Device of the networks.
        learning_at: Shortest side in voxels of the smallest feature map, in training; None
            otherwise.
    """
    narrow = learning_at is not None and learning_at < LEAST_SIDE_IN_BFLOAT16
    if resolve(precision, device) == "float32" or (narrow and device.type == "cpu"):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
