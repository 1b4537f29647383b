"""Building blocks shared by the encoder and the denoiser, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

PerAxis = int | Sequence[int]
"""One value for all spatial axes, or one for each."""


def per_axis(value: PerAxis, dims: int) -> tuple[int, ...]:
    """One value for each of ``dims`` spatial axes.

    Raises:
        ValueError: for another number of values.
    """
    found = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(found) != dims:
        raise ValueError(f"one value for each of {dims} axes is needed. Got {list(found)}.")
    return found


def per_level(
    values: Sequence[PerAxis] | None, first: int, other: int, levels: int, dims: int
) -> list[tuple[int, ...]]:
    """One value for each level and axis; by default ``first`` at the finest, ``other`` below.

    Raises:
        ValueError: for another number of levels or axes.
    """
    chosen = (first, *[other] * (levels - 1)) if values is None else values
    if len(chosen) != levels:
        raise ValueError(f"one value for each of {levels} levels is needed. Got {list(chosen)}.")
    return [per_axis(value, dims) for value in chosen]


class OneImageConv3d(nn.Conv3d):
    """Convolution that takes a single image through oneDNN on a CPU, as it takes batches.

    PyTorch takes single images with small maps another way (``use_mkldnn`` in ATen's
    Convolution.cpp), which is several times slower. Training, other devices and precisions, and
    networks that are compiled or exported go PyTorch's own way. Counters of operations do not know
    oneDNN's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, o, *spatial / stride) of features (B, i, *spatial)."""
        if _through_onednn(x):
            padding = cast("tuple[int, ...]", self.padding)
            return torch.mkldnn_convolution(
                x, self.weight, self.bias, padding, self.stride, self.dilation, self.groups
            )
        return super().forward(x)


def _through_onednn(x: Tensor) -> bool:
    """Whether it is a single image that oneDNN can take, and nothing watches the operations."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and len(x) == 1
    )


def conv(
    dims: int, i: int, o: int, kernel: PerAxis = 3, stride: PerAxis = 1, bias: bool = True
) -> nn.Module:
    """Convolution over ``dims`` axes, ``i`` to ``o`` channels; it keeps the size at stride 1."""
    kernel, stride = per_axis(kernel, dims), per_axis(stride, dims)
    plain = dims == 2 or max(kernel) == 1  # of one voxel it is a product of matrices in any case
    layer: type[nn.Module] = Conv[Conv.CONV, dims] if plain else OneImageConv3d
    return layer(
        i, o, kernel, stride=stride, padding=tuple((k - 1) // 2 for k in kernel), bias=bias
    )


def patch_up(dims: int, i: int, o: int, patch: PerAxis) -> nn.Module:
    """Learned upsampling by ``patch``: each voxel of ``i`` channels becomes a patch of ``o``."""
    sides = per_axis(patch, dims)
    return Conv[Conv.CONVTRANS, dims](i, o, sides, stride=sides)


def group_norm(channels: int, group_size: int = 8) -> nn.GroupNorm:
    """Group normalisation in groups of about ``group_size`` channels."""
    groups = max(channels // group_size, 1)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


class InstanceNorm(nn.Module):
    """Normalisation of each channel of each image by its mean and deviation, scaled and shifted.

    Unlike ``nn.InstanceNorm3d`` it accepts maps of a single voxel; the result is then the bias. On
    a CPU it is group normalisation of groups of one channel, which is the same and faster. Not of
    channels-last maps: there PyTorch subtracts large squares, and loses what channels of a large
    mean have.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised features (B, C, *spatial), same shape."""
        if x[0, 0].numel() == 1:
            return self.bias.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2)).expand_as(x).clone()
        if x.is_cpu and x.is_contiguous() and not torch.compiler.is_compiling():
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.group_norm(x, x.shape[1], weight, bias, self.eps)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class ConvBlock(nn.Module):
    """Convolution, instance normalisation and leaky ReLU, ``depth`` times, with a short cut.

    From a depth of 2 on the block is residual (He et al. 2016, eq. 1 and 2): its input is added to
    its output, through a convolution of one voxel (a patch, at a stride) where width or size
    change.
    """

    def __init__(
        self,
        dims: int,
        i: int,
        o: int,
        *,
        stride: PerAxis = 1,
        kernel: PerAxis = 3,
        depth: int = 2,
    ) -> None:
        super().__init__()
        stride = per_axis(stride, dims)
        layers: list[nn.Module] = []
        for k in range(depth):
            first = k == 0
            layers += [
                conv(dims, i if first else o, o, kernel, stride if first else 1, bias=False),
                InstanceNorm(o),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.residual = depth > 1
        self.short_cut: nn.Module = nn.Identity()
        if self.residual and (i != o or max(stride) > 1):
            self.short_cut = Conv[Conv.CONV, dims](i, o, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, i, *spatial) -> features (B, o, *spatial / stride)."""
        y = self.layers(x)
        return y + self.short_cut(x) if self.residual else y


class FiLMBlock(nn.Module):
    """Residual convolution of normalised features, scaled and shifted by the time (FiLM).

    ``x + conv(silu(norm(x) * (1 + scale(t)) + shift(t)))``; at first scale and shift are 0
    (Perez et al. 2018, eq. 2).
    """

    def __init__(self, dims: int, channels: int, time_channels: int, kernel: PerAxis = 3) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.film = nn.Linear(time_channels, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.conv = conv(dims, channels, channels, kernel)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Features (B, C, *spatial), from such and a time embedding (B or 1, time_channels)."""
        scale, shift = self.film(time).chunk(2, dim=1)
        if time.shape[0] == 1:  # one time for all, as in sampling: the norm's own scale takes it in
            weight = (self.norm.weight * (1.0 + scale[0])).to(x.dtype)
            bias = (self.norm.bias * (1.0 + scale[0]) + shift[0]).to(x.dtype)
            y = F.group_norm(x, self.norm.num_groups, weight, bias, self.norm.eps)
        else:
            shape = (x.shape[0], -1, *[1] * (x.ndim - 2))
            y = self.norm(x) * (1.0 + scale.view(shape)) + shift.view(shape)
        return x + self.conv(F.silu(y))


def upsample_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resize of (B, C, *spatial) to the spatial ``size``."""
    return F.interpolate(x, size=tuple(size), mode="nearest")


def pad_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The map (B, C, *spatial) with its far border replicated up to the spatial ``size``."""
    missing = [wanted - length for wanted, length in zip(size, x.shape[2:], strict=True)]
    if not any(missing):
        return x
    pads = [p for m in reversed(missing) for p in (0, m)]
    return F.pad(x, pads, mode="replicate")


def pad_to_multiple(x: Tensor, multiple: PerAxis) -> Tensor:
    """The map (B, C, *spatial), far border replicated until each axis divides by ``multiple``."""
    multiples = per_axis(multiple, x.ndim - 2)
    return pad_to(x, [n + -n % m for n, m in zip(x.shape[2:], multiples, strict=True)])


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first ``size`` voxels of (B, C, *spatial) along each axis: the inverse of ``pad_to``."""
    place: tuple[slice, ...] = tuple(slice(0, s) for s in size)
    return x[(slice(None), slice(None), *place)]


def pool(x: Tensor, stride: PerAxis) -> Tensor:
    """Means over patches of sides ``stride``: (B, C, *spatial) -> (B, C, *spatial / stride)."""
    sides = per_axis(stride, x.ndim - 2)
    if max(sides) == 1:
        return x
    return F.avg_pool2d(x, sides) if x.ndim == 4 else F.avg_pool3d(x, sides)


def to_patches(x: Tensor, stride: int) -> Tensor:
    """Patches as channels: (B, C, *spatial) -> (B, C stride^d, *spatial / stride).

    In two dimensions that is ``nn.PixelUnshuffle``. The sides must divide by ``stride``.
    """
    dims = x.ndim - 2
    sides = [n for length in x.shape[2:] for n in (length // stride, stride)]
    split = x.reshape(*x.shape[:2], *sides)
    places = [2 + 2 * axis for axis in range(dims)]
    within = [3 + 2 * axis for axis in range(dims)]
    return split.permute(0, 1, *within, *places).flatten(1, 1 + dims)


def from_patches(x: Tensor, stride: int) -> Tensor:
    """The inverse of ``to_patches``: (B, C stride^d, *spatial) -> (B, C, *spatial stride)."""
    dims = x.ndim - 2
    split = x.unflatten(1, (-1, *[stride] * dims))
    order = [a for axis in range(dims) for a in (2 + dims + axis, 2 + axis)]
    size = [stride * length for length in x.shape[2:]]
    return split.permute(0, 1, *order).reshape(len(x), -1, *size)
