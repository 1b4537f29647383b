"""Small perceptrons that classify a voxel by its features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VoxelMLPs(nn.Module):
    """An ensemble of perceptrons of two hidden layers, each with weights of its own.

    Baranchuk et al., "Label-Efficient Semantic Segmentation with Diffusion Models", ICLR 2022,
    sec. 4. Features are standardised by ``mean`` and ``deviation``, which are part of the state.

    Args:
        features: Number C of features of each voxel.
        num_classes: Number K of classes, background included.
        members: Number M of perceptrons.
        hidden: Widths of the hidden layers.
        dropout: Probability, of features and hidden units, in training (``of_each``).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        features: int,
        num_classes: int,
        members: int = 8,
        hidden: Sequence[int] = (32, 32),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_members, self.dropout = num_classes, members, dropout
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        widths = (features, *hidden, num_classes)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(members, i, o) * (2.0 / i) ** 0.5) for i, o in pairwise(widths)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, o)) for o in widths[1:])

    def standardise(self, features: Tensor) -> None:
        """Take mean and deviation from features (V, C)."""
        deviation, mean = torch.std_mean(features.float(), dim=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Features (V, C) of voxels, seen by all members -> logits (M, V, K)."""
        first = self.weights[0] / self.deviation[:, None]  # standardises as well
        bias = self.biases[0] - (self.mean @ first)[:, None]
        x = features @ first.transpose(0, 1).flatten(1).to(features.dtype)  # of all members
        return self._rest(x.unflatten(1, (self.num_members, -1)).transpose(0, 1) + bias)

    def of_each(self, features: Tensor) -> Tensor:
        """Features (M, V, C), those of each member's own voxels -> logits (M, V, K)."""
        x = (features.float() - self.mean) / self.deviation
        x = F.dropout(x, self.dropout, self.training)
        return self._rest(torch.baddbmm(self.biases[0], x, self.weights[0]))

    def _rest(self, x: Tensor) -> Tensor:
        """What follows the first layer's sums (M, V, H)."""
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            x = F.relu(F.layer_norm(x, x.shape[-1:]))
            x = torch.baddbmm(bias, F.dropout(x, self.dropout, self.training), weight)
        return x
