"""How an image's features enter the denoiser: one module a level, each usable by itself.

Features of the image come as (B, C_i, *spatial), those of the masks as (B * N, C, *spatial), the N
members of an image side by side. A module computes what it needs of the image once (``prepare``);
the result is broadcast over members, never copied.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from medsegdiff.networks.cross_attention import CrossAttention
from medsegdiff.networks.ff_parser import FFParser
from medsegdiff.networks.layers import conv, group_norm
from medsegdiff.networks.transformer import SSFormer

Conditioning = Literal["medsegdiff", "concat", "cross_attention", "film"]
"""Way in which an image's features enter the denoiser."""
Prepared = tuple[Tensor, ...]
"""Tensors that a level needs of the image, computed once."""


def by_image(x: Tensor, images: int) -> Tensor:
    """A view of (B * N, ...) as (B, N, ...), for B ``images``."""
    return x.unflatten(0, (images, -1))


def add_over_members(x: Tensor, feature: Tensor) -> Tensor:
    """The sum of ``x`` (B * N, C, ...) and ``feature`` (B, C, ...), added to each member."""
    return (by_image(x, feature.shape[0]) + feature.unsqueeze(1)).flatten(0, 1)


class FeatureProjection(nn.Sequential):
    """Normalisation and projection of image features (B, i, *spatial) -> (B, o, *spatial)."""

    def __init__(self, spatial_dims: int, i: int, o: int) -> None:
        super().__init__(group_norm(i), conv(spatial_dims, i, o, kernel=1))


class ConditioningBlock(nn.Module):
    """Base of the conditioning modules; by itself it projects the image's features and adds them.

    Args:
        spatial_dims: Number of spatial axes, 2 or 3.
        image_channels: Number C_i of channels of the image's features.
        channels: Number C of channels of the masks' features.
        maps: Number of projected maps for each of the C channels.
    """

    def __init__(
        self, spatial_dims: int, image_channels: int, channels: int, *, maps: int = 1
    ) -> None:
        super().__init__()
        self.project = FeatureProjection(spatial_dims, image_channels, maps * channels)

    def prepare(self, feature: Tensor) -> Prepared:
        """The tensors that ``forward`` needs, from the image's features (B, C_i, *spatial)."""
        return (self.project(feature),)

    def forward(self, m_x: Tensor, prepared: Prepared, time: Tensor) -> Tensor:
        """Mask features (B * N, C, *spatial) conditioned on the image, same shape.

        Args:
            m_x: Mask features (B * N, C, *spatial).
            prepared: Tensors from ``prepare``.
            time: Time embedding (B * N or 1, time_channels).
        """
        return add_over_members(m_x, prepared[0])


class DynamicConditionalEncoding(ConditioningBlock):
    """Image features gated by their agreement with the mask's (MedSegDiff, eq. 3 and 4).

    m' = (LN(m_I) * LN(m_x)) * m_I, then through an FF-Parser, and added to the mask's features.

    Args:
        spatial_dims: Number of spatial axes, 2 or 3.
        image_channels: Number C_i of channels of the image's features.
        channels: Number C of channels of the masks' features.
        ff_parser: Whether m' is filtered in Fourier space; otherwise it is added unfiltered.
    """

    def __init__(
        self, spatial_dims: int, image_channels: int, channels: int, ff_parser: bool = True
    ) -> None:
        super().__init__(spatial_dims, image_channels, channels)
        self.norm_image = nn.GroupNorm(1, channels)  # over channels and space: a layer norm
        self.norm_mask = nn.GroupNorm(1, channels)
        self.ff_parser = FFParser(spatial_dims, channels) if ff_parser else None

    def prepare(self, feature: Tensor) -> Prepared:
        """The gate LN(m_I) * m_I (B, C, *spatial), and the FF-Parser's map for this size if any."""
        m_i = self.project(feature)
        gate = self.norm_image(m_i) * m_i
        if self.ff_parser is None:
            return (gate,)
        return gate, self.ff_parser.spectrum_weights(m_i.shape[2:])

    def forward(self, m_x: Tensor, prepared: Prepared, time: Tensor) -> Tensor:
        """Conditioned mask features; shapes as in ``ConditioningBlock.forward``."""
        gate = prepared[0]
        gated = (by_image(self.norm_mask(m_x), len(gate)) * gate.unsqueeze(1)).flatten(0, 1)
        return m_x + (gated if self.ff_parser is None else self.ff_parser(gated, prepared[1]))


class UncertainSpatialAttention(ConditioningBlock):
    """Anchor condition, U-SA: attention to a smoothed anchor feature (MedSegDiff-V2, eq. 2 and 3).

    f_anc = max(f_c * k_Gauss, f_c), the Gaussian's width learned, and the denoiser's features
    become sigmoid(conv1x1(f_anc)) f_d + f_d. The features f_c are added as well.

    Args:
        spatial_dims: Number of spatial axes, 2 or 3.
        image_channels: Number C_i of channels of the image's features.
        channels: Number C of channels of the masks' features.
        radius: Radius of the Gaussian's support, in voxels of the feature map.
    """

    def __init__(
        self, spatial_dims: int, image_channels: int, channels: int, radius: int = 2
    ) -> None:
        super().__init__(spatial_dims, image_channels, channels)
        self.radius = radius
        self.log_sigma = nn.Parameter(torch.zeros(()))  # one voxel of the feature map
        self.conv = conv(spatial_dims, channels, channels, kernel=1)

    def blur(self, f: Tensor) -> Tensor:
        """Features (B, C, *spatial), smoothed by the learned Gaussian; 0 beyond the border.

        It is a product with a banded matrix for each axis: the gradient of a depthwise convolution
        takes many times as long on a CPU.
        """
        offsets = torch.arange(-self.radius, self.radius + 1, device=f.device)
        kernel = torch.exp(-0.5 * (offsets / self.log_sigma.exp()).square())
        kernel = kernel / kernel.sum()
        for axis in range(2, f.ndim):
            place = torch.arange(f.shape[axis], device=f.device)
            apart = place[:, None] - place + self.radius
            band = kernel[apart.clamp(0, 2 * self.radius)]
            band = band.where((apart >= 0) & (apart <= 2 * self.radius), 0.0)
            f = (f.movedim(axis, -1) @ band).movedim(-1, axis)
        return f

    def attention(self, f_c: Tensor) -> Tensor:
        """Attention (B, C, *spatial) in (0, 1), from the image's features of the same shape."""
        f_anc = torch.maximum(self.blur(f_c.to(self.log_sigma.dtype)).to(f_c.dtype), f_c)
        return torch.sigmoid(self.conv(f_anc))

    def prepare(self, feature: Tensor) -> Prepared:
        """The projected features (B, C, *spatial), and 1 + their attention of the same shape."""
        f_c = self.project(feature)
        return f_c, 1.0 + self.attention(f_c)

    def forward(self, m_x: Tensor, prepared: Prepared, time: Tensor) -> Tensor:
        """Conditioned mask features; shapes as in ``ConditioningBlock.forward``."""
        f_c, factor = (f.unsqueeze(1) for f in prepared)
        return torch.addcmul(f_c, by_image(m_x, len(f_c)), factor).flatten(0, 1)


class ConcatMix(ConditioningBlock):
    """Image and mask features concatenated and mixed by a 1 x 1 convolution.

    A convolution of a concatenation is the sum of two convolutions. That of the image, with the
    bias, is the projection, which runs once per image. This class has that of the mask, and the
    sum.
    """

    def __init__(self, spatial_dims: int, image_channels: int, channels: int) -> None:
        super().__init__(spatial_dims, image_channels, channels)
        self.conv = conv(spatial_dims, channels, channels, kernel=1, bias=False)

    def forward(self, m_x: Tensor, prepared: Prepared, time: Tensor) -> Tensor:
        """Conditioned mask features; shapes as in ``ConditioningBlock.forward``."""
        return add_over_members(self.conv(m_x), prepared[0])


class SpatialFiLM(ConditioningBlock):
    """Normalised mask features, scaled and shifted by maps of the image (Park et al. 2019, eq. 1).

    norm(m_x) * (1 + scale) + shift.
    """

    def __init__(self, spatial_dims: int, image_channels: int, channels: int) -> None:
        super().__init__(spatial_dims, image_channels, channels, maps=2)
        self.norm = group_norm(channels)

    def prepare(self, feature: Tensor) -> Prepared:
        """1 + scale, and shift, each (B, C, *spatial)."""
        scale, shift = self.project(feature).chunk(2, dim=1)
        return 1.0 + scale, shift

    def forward(self, m_x: Tensor, prepared: Prepared, time: Tensor) -> Tensor:
        """Conditioned mask features; shapes as in ``ConditioningBlock.forward``."""
        factor, shift = (m.unsqueeze(1) for m in prepared)
        return torch.addcmul(shift, by_image(self.norm(m_x), len(shift)), factor).flatten(0, 1)


class SemanticCondition(ConditioningBlock):
    """The SS-Former between tokens of the image and of the masks (MedSegDiff-V2, sec. 3.3)."""

    def __init__(
        self, spatial_dims: int, image_channels: int, channels: int, time_channels: int
    ) -> None:
        super().__init__(spatial_dims, image_channels, channels)
        self.ss_former = SSFormer(channels, time_channels)

    def prepare(self, feature: Tensor) -> Prepared:
        """The projected features (B, C, *spatial), and both filters for this size."""
        return self.project(feature), *self.ss_former.profiles(feature.shape[2:])

    def forward(self, m_x: Tensor, prepared: Prepared, time: Tensor) -> Tensor:
        """Conditioned mask features; shapes as in ``ConditioningBlock.forward``."""
        features, first, second = prepared
        return self.ss_former(m_x, features, time, (first, second))


class AttentionToImage(ConditioningBlock):
    """Cross-attention from tokens of the masks to tokens of the image."""

    def __init__(self, spatial_dims: int, image_channels: int, channels: int) -> None:
        super().__init__(spatial_dims, image_channels, channels)
        self.cross_attention = CrossAttention(channels)

    def prepare(self, feature: Tensor) -> Prepared:
        """Keys and values (B, L, 2 C)."""
        return (self.cross_attention.keys_and_values(self.project(feature)),)

    def forward(self, m_x: Tensor, prepared: Prepared, time: Tensor) -> Tensor:
        """Conditioned mask features; shapes as in ``ConditioningBlock.forward``."""
        return self.cross_attention(m_x, prepared[0])
