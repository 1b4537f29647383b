"""A network with a bundle's weights."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import InputError, in_words
from medsegdiff.core.types import Compilation
from medsegdiff.models.compilation import compile_parts
from medsegdiff.models.fold_ensemble import FoldEnsemble, joined_weights

N = TypeVar("N", bound=nn.Module)


def read_weights(bundle: Bundle) -> dict[str, Tensor]:
    """The bundle's weights, by their names.

    Raises:
        InputError: the bundle has no weights, or they cannot be read.
    """
    path = bundle.weights()
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words would say how to load it anyway
        rule = "holds no weights, or more than weights, which may be a program: it is not loaded"
        remedy = "Get weights that torch.save wrote of a state_dict (git lfs pull for a pointer)"
        raise InputError(path, rule, remedy) from error
    except Exception as error:  # pickle and zip have many ways to fail
        rule = f"holds no weights that torch can read ({in_words(error)})"
        raise InputError(path, rule, "Get the file again") from error
    return weights


def is_made_of(bundle: Bundle, singles: Sequence[Bundle]) -> bool:
    """Whether a bundle's network is the ensemble of the networks of some bundles, in order.

    Raises:
        InputError: a bundle has no weights, or they cannot be read.
    """
    found = read_weights(bundle)
    expected = joined_weights(read_weights(one) for one in singles)
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) for name, value in expected.items()
    )


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
        network.load_state_dict(read_weights(bundle))
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().split("\n")[-1].strip()
        remedy = "Use weights that were trained with this configuration"
        raise InputError(path, f"does not fit the bundle's network ({reason})", remedy) from error
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    layout = layouts[max(p.ndim for p in network.parameters())]
    network.to(memory_format=layout)  # type: ignore[call-overload]
    network.to(device).eval()
    singles = network.networks if isinstance(network, FoldEnsemble) else [network]
    for single in singles:
        compile_parts(single, compilation, ("encoder", "denoiser"))
    return network
