"""Training in two stages: the encoder and its anchor first, the denoiser on what it has learned.

An ensemble starts from its anchor. Where the denoiser is trained beside the encoder from the first
step, the encoder sees fewer images in the same time than a plain U-Net does. So the encoder may be
trained alone, as that U-Net, and then be frozen: a step of the denoiser needs no gradient through
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medsegdiff.core.errors import InputError


def freeze(module: nn.Module) -> None:
    """Stop a module's training: no gradient, and none that an optimizer still knows.

    An optimizer moves parameters by their momentum and weight decay as long as they have a
    gradient, be it 0.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None


def cosine_stages(
    optimizer: Optimizer, stages: Sequence[int], warmup: int = 200, warmup_factor: float = 0.05
) -> LambdaLR:
    """Learning rate that rises and falls along a cosine to 0 in each stage.

    Args:
        optimizer: Optimizer whose learning rate is the highest of each stage.
        stages: Number of steps of each stage; earlier stages of 0 steps are passed over.
        warmup: Number of steps in which the rate rises linearly, at most a tenth of the stage.
        warmup_factor: Share of the highest rate that a stage begins with.

    Raises:
        InputError: the last stage has no step.

    >>> from torch import zeros
    >>> schedule = cosine_stages(Optimizer([zeros(1)], {"lr": 1.0}), [20, 10], warmup=0)
    >>> [round(schedule.lr_lambdas[0](step), 2) for step in (0, 10, 20, 25, 30)]
    [1.0, 0.5, 1.0, 0.5, 0.0]
    """
    lengths = [length for length in stages if length > 0]
    if not lengths or stages[-1] < 1:
        rule = f"leaves the last stage of training no step: stages have {list(stages)} steps"
        raise InputError("anchor_steps", rule, "Train more epochs, or set anchor_steps lower")

    def factor(step: int) -> float:
        for length in lengths[:-1]:
            if step < length:
                return _of_stage(step, length, warmup, warmup_factor)
            step -= length
        return _of_stage(min(step, lengths[-1]), lengths[-1], warmup, warmup_factor)

    return LambdaLR(optimizer, factor)


def _of_stage(step: int, length: int, warmup: int, warmup_factor: float) -> float:
    rise = min(warmup, length // 10)
    if step < rise:
        return warmup_factor + (1.0 - warmup_factor) * step / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(length - rise, 1)))
