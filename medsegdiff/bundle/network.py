"""A network with a bundle's weights."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import InputError, in_words
from medsegdiff.core.types import Compilation
from medsegdiff.models.compilation import compile_parts

N = TypeVar("N", bound=nn.Module)


def load_network(
    network: N,
    bundle: Bundle,
    device: torch.device,
    compilation: Compilation = "off",
) -> N:
    """Load the bundle's weights into the network; put it in evaluation mode and channels last.

    ``compilation`` says how the encoder and the denoiser are compiled
    (``compilation.compile_parts``).

    Raises:
        InputError: the bundle has no weights, or they do not fit the network.
    """
    path = bundle.weights()
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and zip have many ways to fail
        rule = f"holds no weights that torch can read ({in_words(error)})"
        raise InputError(path, rule, "Get the file again") from error
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().split("\n")[-1].strip()
        remedy = "Use weights that were trained with this configuration"
        raise InputError(path, f"does not fit the bundle's network ({reason})", remedy) from error
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    layout = layouts[max(p.ndim for p in network.parameters())]
    network.to(memory_format=layout)  # type: ignore[call-overload]
    network.to(device).eval()
    compile_parts(network, compilation, ("encoder", "denoiser"))
    return network
