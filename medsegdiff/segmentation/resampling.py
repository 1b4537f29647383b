"""MONAI's resampling, slab by slab where an image is large.

MONAI works in float64 and computes the coordinates of every voxel beforehand: some 60 bytes a
voxel. Here each slab of the result is resampled by itself, from the part of the source it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import AFFINE_TOL, to_affine_nd
from monai.transforms import Compose, Spacingd, SpatialResample
from monai.utils import TraceKeys
from numpy.typing import NDArray
from torch import Tensor

from medsegdiff.core.limits import check_size
from medsegdiff.core.storage import SLAB, slabs

CROPPABLE = ("border", "zeros")
"""Padding modes for which resampling a part of the image gives the same values as all of it."""


def resample_by_slabs(chain: Compose) -> Compose:
    """The same chain, whose ``Spacingd`` now resample large images by slabs, also inverted."""
    for transform in chain.flatten().transforms:
        if isinstance(transform, Spacingd):
            spacing = transform.spacing_transform
            before = spacing.sp_resample
            spacing.sp_resample = SlabResample(
                before.mode, before.padding_mode, before.align_corners, before.dtype, before.lazy
            )
    return chain


class SlabResample(SpatialResample):
    """MONAI's ``SpatialResample`` with the same result and less memory."""

    def __call__(self, img: Tensor, *args: Any, lazy: bool | None = None, **kwargs: Any) -> Tensor:
        """The resampled image (C, *size); arguments as of MONAI's ``SpatialResample``.

        Raises:
            InputError: it would be larger than the limit.
        """
        plan = super().__call__(img, *args, lazy=True, **kwargs)
        todo = plan.pending_operations[-1] if isinstance(plan, MetaTensor) else None
        if (self.lazy if lazy is None else lazy) or todo is None:
            return super().__call__(img, *args, lazy=lazy, **kwargs)
        size, affine = plan.peek_pending_shape(), plan.peek_pending_affine()
        check_size("the image on the network's grid", 4.0 * img.shape[0] * math.prod(size))
        info = todo[TraceKeys.EXTRA_INFO]
        if not _is_large(img, size, info, affine):
            return super().__call__(img, *args, lazy=lazy, **kwargs)
        values = _resampled(img, plan.affine, affine, size, info)
        return _placed(values, affine, plan, [*plan.applied_operations, todo])

    def inverse(self, data: Tensor) -> Tensor:
        """The image (C, *spatial) on the grid it had before it was resampled."""
        if not isinstance(data, MetaTensor):
            return super().inverse(data)
        done = data.applied_operations[-1]
        info, size = done[TraceKeys.EXTRA_INFO], done[TraceKeys.ORIG_SIZE]
        if not _is_large(data, size, info, info["src_affine"]):
            return super().inverse(data)
        self.pop_transform(data)
        values = _resampled(data, data.affine, info["src_affine"], size, info)
        return _placed(values, info["src_affine"], data, data.applied_operations)


def _placed(values: Tensor, affine: Tensor, like: MetaTensor, done: list[Any]) -> MetaTensor:
    """An image on a new grid, with the meta data of the image that it was made from."""
    placed = MetaTensor(values, meta=dict(like.meta), applied_operations=done)
    placed.affine = affine
    return placed


def _is_large(img: MetaTensor, size: Sequence[int], info: dict[str, Any], affine: Tensor) -> bool:
    """Whether the image is large, is changed by resampling, and can be resampled by slabs."""
    spatial = tuple(img.shape[1:])
    rank = len(spatial)
    src, dst = (np.asarray(to_affine_nd(rank, np.asarray(a))) for a in (img.affine, affine))
    same = np.allclose(src, dst, atol=AFFINE_TOL) or np.allclose(
        np.linalg.solve(src, dst), np.eye(rank + 1), atol=AFFINE_TOL
    )
    unchanged = same and spatial == tuple(size)  # as MONAI sees it
    large = max(math.prod(size), math.prod(spatial)) > SLAB
    plain = isinstance(info["mode"], str) and info["align_corners"] is not True
    return large and not unchanged and plain and len(size) == rank


def _resampled(
    img: Tensor, src: Any, dst: Any, size: Sequence[int], info: dict[str, Any]
) -> Tensor:
    """Values (C, *size) float32 on the grid of ``dst``, of an image (C, *spatial) on ``src``."""
    img = img.as_tensor() if isinstance(img, MetaTensor) else img
    rank, found = len(size), torch.empty(len(img), *size, dtype=torch.float32)
    src, dst = (np.asarray(to_affine_nd(rank, np.asarray(a, dtype=np.float64))) for a in (src, dst))
    one = SpatialResample(
        mode=info["mode"],
        padding_mode=info["padding_mode"],
        dtype=getattr(torch, info["dtype"]),
    )
    with one.trace_transform(False):
        for place in slabs(size, axis=-1):
            extent = [len(range(n)[part]) for n, part in zip(size, place, strict=True)]
            here = _moved(dst, [part.start or 0 for part in place])
            box = [slice(0, n) for n in img.shape[1:]]
            if info["padding_mode"] in CROPPABLE:
                box = _needed(np.linalg.solve(src, here), extent, img.shape[1:])
            moved = torch.as_tensor(_moved(src, [part.start for part in box]))
            crop = MetaTensor(img[(slice(None), *box)], affine=moved)
            found[(slice(None), *place)] = one(crop, torch.as_tensor(here), extent).as_tensor()
    return found


def _moved(affine: NDArray[np.float64], start: Sequence[int]) -> NDArray[np.float64]:
    """The affine of a grid that begins at voxel ``start`` of another."""
    moved = affine.copy()
    moved[:-1, -1] += affine[:-1, :-1] @ np.asarray(start, dtype=np.float64)
    return moved


def _needed(
    to_source: NDArray[np.float64], extent: Sequence[int], size: Sequence[int]
) -> list[slice]:
    """The box of a source of ``size`` that a grid of ``extent`` takes its values from."""
    ends = np.meshgrid(*[(0, n - 1) for n in extent], indexing="ij")
    corners = np.stack([e.ravel() for e in ends] + [np.ones(2 ** len(extent))])
    reached = (to_source @ corners)[:-1]
    low = np.floor(reached.min(axis=1)).astype(int) - 2
    high = np.ceil(reached.max(axis=1)).astype(int) + 3
    starts = [max(0, min(a, n - 2)) for a, n in zip(low, size, strict=True)]
    stops = [min(n, max(b, a + 2)) for a, b, n in zip(starts, high, size, strict=True)]
    return [slice(a, b) for a, b in zip(starts, stops, strict=True)]
