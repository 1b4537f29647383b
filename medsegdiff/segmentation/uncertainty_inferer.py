"""An inferer that tells of any network how sure it is: mean and variance over several passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from medsegdiff.segmentation.ensemble import RunningMoments
from medsegdiff.segmentation.sliding_window import EnsembleInferer


class MeanAndVariance(NamedTuple):
    """Statistics over several passes.

    Attributes:
        mean: Mean probability (B, K, *spatial) in [0, 1].
        variance: Population variance (B, K, *spatial) over the passes, in [0, 0.25].
    """

    mean: Tensor
    variance: Tensor


def softmax(logits: Tensor) -> Tensor:
    """Probabilities (B, K, *spatial) of classes that exclude each other, from their logits."""
    return torch.softmax(logits.float(), dim=1)


class UncertaintyInferer(Inferer):
    """Runs a network, or networks, several times, and gives mean and variance of the probability.

    Called like any inferer of MONAI, ``inferer(image, network)``, where ``network`` is

    - a network with dropout: its dropout stays active, and each pass drops other units (MC
      dropout, Gal and Ghahramani 2016); all else is as in evaluation;
    - a sequence of networks: a pass each (deep ensemble, Lakshminarayanan et al. 2017);
    - a ``DiffusionSegmenter``, if ``inferer`` is an ``EnsembleInferer``: its members.

    Networks have to be in evaluation mode.

    Args:
        inferer: Inferer of one pass, such as MONAI's ``SlidingWindowInferer``; None: the network
            sees the whole image.
        passes: Number of passes of a network with dropout.
        activation: Function from a network's output to probabilities.
        seed: Seed of the dropout. Torch's own random state is left as it was.

    Raises:
        ValueError: ``passes`` is below 2.
    """

    def __init__(
        self,
        inferer: Inferer | None = None,
        passes: int = 16,
        activation: Callable[[Tensor], Tensor] = softmax,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if passes < 2:
            raise ValueError(f"passes must be 2 or more. Got {passes}.")
        self.inferer = inferer or SimpleInferer()
        self.passes, self.activation, self.seed = passes, activation, seed

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> MeanAndVariance:
        """Mean and variance for images (B, C, *spatial).

        Further arguments go to the inferer of one pass.

        Raises:
            ValueError: a network alone has no dropout.
        """
        if isinstance(self.inferer, EnsembleInferer):
            found = self.inferer.ensembles(inputs, network)
            mean, variance = (
                torch.stack([getattr(one, name) for one in found]).to(inputs.device)
                for name in ("mean", "variance")
            )
            return MeanAndVariance(mean, variance)
        moments = RunningMoments()
        for one in self._networks(network, inputs.device):
            output = self.activation(self.inferer(inputs, one, *args, **kwargs))
            moments.update(output.unsqueeze(0))
        return MeanAndVariance(moments.mean, moments.variance)

    def _networks(self, network: Any, device: torch.device) -> Iterator[Callable[..., Any]]:
        """The network of each pass."""
        if isinstance(network, Sequence | nn.ModuleList):
            yield from network
            return
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), dropping(network):
            torch.manual_seed(self.seed)
            for _ in range(self.passes):
                yield network


@contextmanager
def dropping(network: nn.Module) -> Iterator[None]:
    """A context in which a network's dropout is active, and nothing else as in training.

    Args:
        network: Network in evaluation mode.

    Raises:
        ValueError: the network has no dropout.
    """
    layers = [m for m in network.modules() if isinstance(m, _DropoutNd) and m.p > 0.0]
    if not layers:
        raise ValueError(
            "the network has no dropout, so that all passes would be alike. Give several networks."
        )
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.train(was)
