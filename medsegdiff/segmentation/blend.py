"""Blend the maps of overlapping windows into maps on the image's grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from numpy.typing import NDArray
from torch import Tensor

from medsegdiff.core.storage import Storage

Place = tuple[slice, ...]


def places_of(size: Sequence[int], roi: Sequence[int], overlap: float) -> list[Place]:
    """Places of an image's windows, the same as those of MONAI's ``sliding_window_inference``.

    Args:
        size: Spatial size of the image, in voxels.
        roi: Spatial size of a window, in voxels, along no axis larger than the image.
        overlap: Overlap of neighbouring windows, as a fraction in [0, 1).

    Returns:
        Slices for each window, the first axis slowest.
    """
    step = [
        r if r == n else max(1, int(r * (1.0 - overlap))) for r, n in zip(roi, size, strict=True)
    ]
    return [tuple(place) for place in dense_patch_slices(size, roi, step)]


class Blend:
    """Gaussian-weighted sum of the windows' maps, and the label maps of the members.

    A member's label comes from the window of the greatest weight, of equal ones the first. Windows
    must come in the order of ``places_of``. Layers along the first axis that no later window
    reaches are finished at once, and the memory of large arrays is freed row by row.

    Args:
        size: Spatial size of the image, in voxels.
        roi: Spatial size of a window, in voxels.
        members: Number N of members.
        storage: Maker of the arrays.
    """

    def __init__(
        self, size: Sequence[int], roi: Sequence[int], members: int, storage: Storage
    ) -> None:
        self.size, self.storage = tuple(size), storage
        self.importance = compute_importance_map(tuple(roi), mode="gaussian", dtype=torch.float32)
        self.weight, self.best = self._zeros(1, "float32")[0], self._zeros(1, "float32")[0]
        self.labels = self._zeros(members, "uint8")
        self.maps: dict[str, Tensor] = {}
        self.finished = 0
        self.row: Place = ()

    def add(self, place: Place, maps: dict[str, Tensor], labels: Tensor) -> None:
        """Add one window.

        Args:
            place: Place of the window in the image.
            maps: Maps (K, *window) by name.
            labels: Label maps (N, *window) uint8 of the members.
        """
        self._arrive(place)
        for name, values in maps.items():
            if name not in self.maps:
                self.maps[name] = self._zeros(len(values), "float32")
            self.maps[name][(slice(None), *place)] += values.cpu() * self.importance
        self.weight[place] += self.importance
        better = self.importance > self.best[place]
        self.best[place] = torch.where(better, self.importance, self.best[place])
        mine = self.labels[(slice(None), *place)]
        self.labels[(slice(None), *place)] = torch.where(better, labels, mine)

    def result(self) -> tuple[dict[str, Tensor], Tensor]:
        """Blended maps (K, *spatial) and labels (N, *spatial), after all windows were added."""
        self._finish(self.size[0])
        return self.maps, self.labels

    def _arrive(self, place: Place) -> None:
        if place[:-1] != self.row:
            self._finish(place[0].start)
            self.storage.release()
            self.row = place[:-1]

    def _finish(self, end: int) -> None:
        layers = slice(self.finished, end)
        for maps in self.maps.values():
            for channel in maps:
                channel[layers] /= self.weight[layers]
                self.storage.release()
        self.finished = end

    def _zeros(self, channels: int, dtype: str) -> Tensor:
        array: NDArray[Any] = self.storage.zeros((channels, *self.size), dtype)
        return torch.from_numpy(array)
