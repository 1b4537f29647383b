"""In what precision networks compute: bfloat16 where a device is made for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from medsegdiff.core.types import Precision

LEAST_SIDE_IN_BFLOAT16 = 3
"""On CPUs, torch's gradient of a bfloat16 convolution reads stray memory for maps 2 voxels wide."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32 (others only imitate it)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported()) if supported else False
    return False


def resolve(precision: Precision, device: torch.device) -> Precision:
    """What ``auto`` means on the device."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def autocast(
    precision: Precision, device: torch.device, learning_at: int | None = None
) -> AbstractContextManager[None]:
    """The context that networks run in; what surrounds it is left as it is for float32.

    Args:
        precision: of the networks.
        device: that they are on.
        learning_at: in training, the shortest side in voxels of the smallest feature map.
    """
    narrow = learning_at is not None and learning_at < LEAST_SIDE_IN_BFLOAT16
    if resolve(precision, device) == "float32" or (narrow and device.type == "cpu"):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
