"""Windows -> maps on the image's grid, layer by layer of windows."""

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
    """Where the windows of an image lie, as MONAI's ``sliding_window_inference`` puts them.

    Args:
        size: of the image.
        roi: of a window, nowhere larger.
        overlap: of neighbouring windows, as a fraction in [0, 1).

    Returns:
        A place a window, the first axis slowest.
    """
    step = [
        r if r == n else max(1, int(r * (1.0 - overlap))) for r, n in zip(roi, size, strict=True)
    ]
    return [tuple(place) for place in dense_patch_slices(size, roi, step)]


class Blend:
    """The windows' maps, weighted towards their centres, and their members' label maps.

    A member's label is that of the window of the greatest weight, of equal ones the first. Windows
    come in the order of ``places_of``: what no later one reaches is finished as soon as one comes
    from further on along the first axis, and the memory of large arrays is let go row by row.

    Args:
        size: of the image.
        roi: of a window.
        members: N.
        storage: makes the arrays.
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
        """Take in one window.

        Args:
            place: of the window.
            maps: each (K, *window).
            labels: (N, *window) uint8.
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
        """The blended maps (K, *spatial) and the labels (N, *spatial), once all windows are in."""
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
            for one in maps:
                one[layers] /= self.weight[layers]
                self.storage.release()
        self.finished = end

    def _zeros(self, channels: int, dtype: str) -> Tensor:
        array: NDArray[Any] = self.storage.zeros((channels, *self.size), dtype)
        return torch.from_numpy(array)
