"""The two parts of a segmenter that are exported: encoder once, denoiser per step and members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.networks.denoiser import Conditioned


@dataclass(frozen=True, eq=False)
class Parts:
    """A segmenter in two parts, for images of one size.

    Attributes:
        encoder: Part ``image (1, C, *size) -> (anchor (1, K, *size), *condition)``, the anchor as
            logits.
        denoiser: Part ``(x_t, t, noise, *condition) -> (x_0, probability)``: states and noise
            (N, K, *state), time step (1,) int64, mask (N, K, *state) in [-1, 1], and probabilities
            (N, K, *size) in [0, 1].
        state: Spatial size of the states.
    """

    encoder: EncoderPart
    denoiser: DenoiserPart
    state: tuple[int, ...]


class EncoderPart(nn.Module):
    """Anchor and condition of an image, as plain tensors.

    Args:
        network: Segmenter in evaluation mode.
        kept: Numbers of the tensors of its condition that depend on the image.
    """

    def __init__(self, network: DiffusionSegmenter, kept: Sequence[int]) -> None:
        super().__init__()
        self.network, self.kept = network, tuple(kept)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The anchor's logits, and what the denoiser needs of the image."""
        leaves = pytree.tree_leaves(tuple(self.network.encode(image)))
        return tuple(leaves[number] for number in self.kept)


class DenoiserPart(nn.Module):
    """One evaluation of the denoiser for all members, and the masks at the image's size.

    What does not depend on the image, as the filters in Fourier space, is part of it.

    Args:
        network: Segmenter in evaluation mode.
        condition: Condition of any image of the size.
        kept: Numbers of the tensors of the condition that come with each image.
    """

    def __init__(
        self, network: DiffusionSegmenter, condition: Conditioned, kept: Sequence[int]
    ) -> None:
        super().__init__()
        leaves, self.structure = pytree.tree_flatten(tuple(condition))
        self.network, self.kept, self.count = network, tuple(kept), len(leaves)
        self.is_complex = [leaf.is_complex() for leaf in leaves]
        for number, leaf in enumerate(leaves):
            if number not in self.kept:  # ONNX has no complex tensors
                value = torch.view_as_real(leaf) if leaf.is_complex() else leaf
                self.register_buffer(f"constant_{number}", value.clone())

    def forward(
        self, x_t: Tensor, t: Tensor, noise: Tensor, *condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Clean masks on the states' grid, and probabilities at the image's size."""
        given = dict(zip(self.kept, condition, strict=True))
        whole = Conditioned(
            *pytree.tree_unflatten(
                [given[n] if n in given else self._constant(n) for n in range(self.count)],
                self.structure,
            )
        )
        mask, features = self.network.x_0(x_t, t, whole, lambda _: noise)
        return mask, self.network.fine(features, whole)

    def _constant(self, number: int) -> Tensor:
        value: Tensor = getattr(self, f"constant_{number}")
        return torch.view_as_complex(value) if self.is_complex[number] else value


@torch.no_grad()
def split(network: DiffusionSegmenter, channels: int, size: Sequence[int]) -> Parts:
    """A segmenter in the two parts that are exported.

    Args:
        network: Segmenter in evaluation mode, on the CPU, in float32.
        channels: Number of channels of the image.
        size: Spatial size of the images.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, channels, *size, generator=generator)
    first, second = (network.encode(image) for image in images)
    pairs = zip(*(pytree.tree_leaves(tuple(one)) for one in (first, second)), strict=True)
    changes = [number for number, (a, b) in enumerate(pairs) if not torch.equal(a, b)]
    kept = sorted({0, *changes})
    state = tuple(network.state_size(size))
    return Parts(EncoderPart(network, kept), DenoiserPart(network, first, kept), state)
