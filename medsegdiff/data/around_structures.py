"""The part of a training image around its structures, as a locator will cut it out of a scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, SpatialCrop
from numpy.typing import NDArray

from medsegdiff.core.types import UNKNOWN_CLASS

MARGIN = 0.25
"""Share of a box's extent that is added on each side, unless another is given."""


def grown(
    low: NDArray[Any], high: NDArray[Any], shape: Sequence[int], margin: float, least: float = 2.0
) -> tuple[slice, ...]:
    """A box with a margin on each side, as far as the image reaches.

    Args:
        low: First voxel (D,) of the box.
        high: Voxel (D,) after its last.
        shape: Size (D,) of the image.
        margin: Share of the box's extent that is added on each side.
        least: Least number of voxels that are added on each side.
    """
    by = np.maximum(margin * (high - low), least)
    first = np.maximum(np.floor(low - by), 0).astype(int)
    after = np.minimum(np.ceil(high + by), shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, after, strict=True))


class CropAroundStructuresd(MapTransform):
    """Crops image and label to the box of all structures and a margin.

    An image without a structure is cropped to a box of the given size in its middle.

    Args:
        keys: Keys of the maps (C, *spatial) to crop, on one grid.
        size_mm: Size in mm of the box of an image without a structure, the shortest axis first;
            axes are matched by their extents.
        margin: Share of the box's extent that is added on each side.
        label_key: Key of the label maps (M, *spatial), one for each rater.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size_mm: Sequence[float],
        margin: float = MARGIN,
        label_key: str = "label",
    ) -> None:
        super().__init__(keys)
        self.size_mm, self.margin, self.label_key = sorted(size_mm), margin, label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The cropped item."""
        item = dict(data)
        label = item[self.label_key]
        shape, marked = label.shape[1:], np.asarray(label)
        at = np.nonzero(((marked > 0) & (marked != UNKNOWN_CLASS)).any(axis=0))
        if at[0].size:
            low, high = (np.array([f(axis) for axis in at]) for f in (np.min, np.max))
            box = grown(low, high + 1, shape, self.margin)
        else:
            box = self._middle(shape, np.linalg.norm(np.asarray(label.affine), axis=0))
        crop = SpatialCrop(roi_slices=list(box))
        for key in self.key_iterator(item):
            item[key] = crop(item[key])
        return item

    def _middle(self, shape: Sequence[int], spacing: NDArray[Any]) -> tuple[slice, ...]:
        extents = np.array(shape) * spacing[: len(shape)]
        size = np.zeros(len(shape))
        size[np.argsort(extents, kind="stable")] = self.size_mm
        voxels = np.minimum(np.ceil(size / spacing[: len(shape)]), shape).astype(int)
        return tuple(
            slice((n - v) // 2, (n - v) // 2 + v)
            for n, v in zip(shape, voxels.tolist(), strict=True)
        )
