"""In what precision networks compute: bfloat16 where a device is made for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from medsegdiff.types import Precision


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


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The context that networks run in; what surrounds it is left as it is for float32."""
    if resolve(precision, device) == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
