"""The networks of several folds as one: members of an ensemble are shared out over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from medsegdiff.core.types import Precision
from medsegdiff.diffusion.process import Process
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter

PREFIX = "networks"
"""Name before the weights of each network, followed by the network's number."""


class FoldEnsemble(nn.Module):
    """Several networks of one architecture, each trained on another part of the data.

    :class:`~medsegdiff.segmentation.EnsembleInferer` shares its members out over the networks:
    member m is of network m modulo their number. Every network encodes the image once.

    Args:
        network: Network whose architecture all have.
        folds: Number of networks.

    Raises:
        ValueError: the number is below 1.
    """

    def __init__(self, network: DiffusionSegmenter, folds: int) -> None:
        super().__init__()
        if folds < 1:
            raise ValueError(f"folds must be 1 or more. Got {folds}.")
        copies = (deepcopy(network) for _ in range(folds - 1))
        self.networks: Sequence[DiffusionSegmenter]
        self.networks = nn.ModuleList([network, *copies])  # type: ignore[assignment]

    @property
    def num_classes(self) -> int:
        """Number K of classes, background included."""
        return self.networks[0].num_classes

    @property
    def stride(self) -> tuple[int, ...]:
        """Ratio of the image's size to that of the states, along each axis."""
        return self.networks[0].stride

    @property
    def process(self) -> Process:
        """The diffusion process, which all networks share."""
        return self.networks[0].process

    @property
    def precision(self) -> Precision:
        """Precision of the networks."""
        return self.networks[0].precision

    def state_size(self, size: Sequence[int]) -> list[int]:
        """Spatial size of the states x_t of an image of ``size``."""
        return self.networks[0].state_size(size)


def networks_of(network: DiffusionSegmenter | FoldEnsemble) -> list[DiffusionSegmenter]:
    """The single networks of an ensemble of folds; a plain network is its only one."""
    return list(network.networks) if isinstance(network, FoldEnsemble) else [network]


def joined_weights(weights: Iterable[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Weights of a :class:`FoldEnsemble`, from those of its networks in order.

    >>> sorted(joined_weights([{"w": Tensor([1.0])}, {"w": Tensor([2.0])}]))
    ['networks.0.w', 'networks.1.w']
    """
    return {
        f"{PREFIX}.{number}.{name}": value
        for number, one in enumerate(weights)
        for name, value in one.items()
    }
