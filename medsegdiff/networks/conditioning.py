"""How an image's features enter the denoiser: modules for a level of it, each usable by itself.

Features of the image come as (B, C, *spatial), those of the masks as (B * N, C, *spatial), the N
members of an image side by side. The image's features are broadcast over members, never copied.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.layers import separable_filtering
from torch import Tensor, nn

from medsegdiff.networks.ff_parser import FFParser
from medsegdiff.networks.layers import conv, group_norm


def by_image(x: Tensor, images: int) -> Tensor:
    """(B * N, ...) -> (B, N, ...), a view."""
    return x.unflatten(0, (images, -1))


def add_over_members(x: Tensor, feature: Tensor) -> Tensor:
    """(B * N, C, ...) plus (B, C, ...), the latter added to each member of its image."""
    return (by_image(x, feature.shape[0]) + feature.unsqueeze(1)).flatten(0, 1)


class DynamicConditionalEncoding(nn.Module):
    """Image features gated by their agreement with the mask's (MedSegDiff, eq. 3 and 4).

    m' = (LN(m_I) * LN(m_x)) * m_I, then through an FF-Parser, and added to the mask's features.

    Args:
        spatial_dims: 2 or 3.
        channels: C of both feature maps.
        ff_parser: filter m' in Fourier space; otherwise it is added as it is.
    """

    def __init__(self, spatial_dims: int, channels: int, ff_parser: bool = True) -> None:
        super().__init__()
        self.norm_image = nn.GroupNorm(1, channels)  # over channels and space: a layer norm
        self.norm_mask = nn.GroupNorm(1, channels)
        self.ff_parser = FFParser(spatial_dims, channels) if ff_parser else nn.Identity()

    def forward(self, m_x: Tensor, m_i: Tensor) -> Tensor:
        """(B * N, C, *spatial), (B, C, *spatial) -> (B * N, C, *spatial)."""
        images = m_i.shape[0]
        affinity = by_image(self.norm_mask(m_x), images) * self.norm_image(m_i).unsqueeze(1)
        gated = (affinity * m_i.unsqueeze(1)).flatten(0, 1)
        return m_x + self.ff_parser(gated)


class UncertainSpatialAttention(nn.Module):
    """Anchor condition, U-SA: where the anchor may be wrong by a little, look (V2, eq. 2 and 3).

    f_anc = max(f_c * k_Gauss, f_c), the Gaussian's width learned, and the denoiser's features
    become sigmoid(conv1x1(f_anc)) f_d + f_d.

    Args:
        spatial_dims: 2 or 3.
        channels: C of both feature maps.
        radius: of the Gaussian's support, in voxels of the feature map.
    """

    def __init__(self, spatial_dims: int, channels: int, radius: int = 2) -> None:
        super().__init__()
        self.radius = radius
        self.log_sigma = nn.Parameter(torch.zeros(()))  # one voxel of the feature map
        self.conv = conv(spatial_dims, channels, channels, kernel=1)

    def blur(self, f: Tensor) -> Tensor:
        """(B, C, *spatial), smoothed by the learned Gaussian along each axis."""
        offsets = torch.arange(-self.radius, self.radius + 1, device=f.device)
        kernel = torch.exp(-0.5 * (offsets / self.log_sigma.exp()).square())
        return separable_filtering(f, [kernel / kernel.sum()] * (f.ndim - 2))

    def attention(self, f_c: Tensor) -> Tensor:
        """(B, C, *spatial) of the condition -> attention in (0, 1); depends on the image only."""
        f_anc = torch.maximum(self.blur(f_c.float()).to(f_c.dtype), f_c)
        return torch.sigmoid(self.conv(f_anc))

    def forward(self, f_d: Tensor, attention: Tensor) -> Tensor:
        """(B * N, C, *spatial), (B, C, *spatial) -> (B * N, C, *spatial)."""
        attended = by_image(f_d, attention.shape[0]) * (1.0 + attention.unsqueeze(1))
        return attended.flatten(0, 1)


class ConcatMix(nn.Module):
    """Image and mask features concatenated and mixed by a 1 x 1 convolution.

    A convolution of a concatenation is the sum of two convolutions. The image's half, with the
    bias, is a ``FeatureProjection``: once per image. This is the mask's half, and the sum.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.conv = conv(spatial_dims, channels, channels, kernel=1, bias=False)

    def forward(self, m_x: Tensor, m_i: Tensor) -> Tensor:
        """(B * N, C, *spatial), the image's half (B, C, *spatial) -> (B * N, C, *spatial)."""
        return add_over_members(self.conv(m_x), m_i)


class SpatialFiLM(nn.Module):
    """Normalised mask features, scaled and shifted by maps of the image (Park et al. 2019, eq. 1).

    norm(m_x) * (1 + scale) + shift; a ``FeatureProjection`` to 2 C channels makes both maps, once
    per image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)

    def forward(self, m_x: Tensor, maps: Tensor) -> Tensor:
        """(B * N, C, *spatial), scale and shift (B, 2 C, *spatial) -> (B * N, C, *spatial)."""
        scale, shift = maps.unsqueeze(1).chunk(2, dim=2)
        m_x = by_image(self.norm(m_x), maps.shape[0])
        return torch.addcmul(shift, m_x, 1.0 + scale).flatten(0, 1)


class FeatureProjection(nn.Sequential):
    """Image features (B, i, *spatial) -> (B, o, *spatial), normalised: once per image."""

    def __init__(self, spatial_dims: int, i: int, o: int) -> None:
        super().__init__(group_norm(i), conv(spatial_dims, i, o, kernel=1))


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """(B, C, *spatial) at the spatial size of ``reference``, by (bi/tri)linear interpolation."""
    if x.shape[2:] == reference.shape[2:]:
        return x
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return F.interpolate(x, size=reference.shape[2:], mode=mode, align_corners=False)
