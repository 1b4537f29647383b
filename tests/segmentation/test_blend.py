"""Windows are put together as MONAI does it, wherever the arrays lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch import Tensor

from medsegdiff.core.storage import Storage
from medsegdiff.segmentation.blend import Blend, Place, places_of

CASES = [
    ((40, 27), (16, 16), 0.25),
    ((33, 16), (16, 16), 0.0),
    ((21, 13, 18), (8, 8, 8), 0.5),
    ((9, 20, 17), (9, 8, 10), 0.25),
]


def maps_of(place: Sequence[slice]) -> dict[str, Tensor]:
    """Values that depend on the window alone."""
    extent = [part.stop - part.start for part in place]
    generator = torch.Generator().manual_seed(hash(tuple(p.start for p in place)) % 2**32)
    return {
        "mean": torch.rand(3, *extent, generator=generator),
        "variance": torch.rand(2, *extent, generator=generator),
    }


def labels_of(place: Sequence[slice]) -> Tensor:
    return (5 * maps_of(place)["variance"]).to(torch.uint8)


@pytest.mark.parametrize("in_memory", [0, 2**30], ids=["disk", "memory"])
@pytest.mark.parametrize(("size", "roi", "overlap"), CASES)
def test_maps_are_blended_as_monai_blends(
    size: tuple[int, ...], roi: tuple[int, ...], overlap: float, in_memory: int, tmp_path: Path
) -> None:
    visited: list[Place] = []

    def predict(window: Tensor, where: Sequence[Sequence[slice]]) -> dict[str, Tensor]:
        visited.append(tuple(where[0][2:]))
        return {name: maps[None] for name, maps in maps_of(visited[-1]).items()}

    expected = sliding_window_inference(
        torch.zeros(1, 1, *size), roi, 1, predict, overlap, mode="gaussian", with_coord=True
    )
    blend = Blend(size, roi, 2, Storage(tmp_path, in_memory))
    places = places_of(size, roi, overlap)
    assert places == visited
    for place in places:
        blend.add(place, maps_of(place), labels_of(place))
    maps, _ = blend.result()
    assert set(maps) == set(expected)
    for name, found in maps.items():
        torch.testing.assert_close(found, torch.as_tensor(expected[name][0]))


@pytest.mark.parametrize(("size", "roi", "overlap"), CASES)
def test_labels_are_those_of_the_nearest_centre(
    size: tuple[int, ...], roi: tuple[int, ...], overlap: float
) -> None:
    """All windows side by side: the greatest weight decides, of equal ones the first."""
    places, blend = places_of(size, roi, overlap), Blend(size, roi, 2, Storage())
    importance = compute_importance_map(roi, mode="gaussian", dtype=torch.float32)
    weights = torch.zeros(len(places), *size)
    labels = torch.zeros(len(places), 2, *size, dtype=torch.uint8)
    for weight, label, place in zip(weights, labels, places, strict=True):
        weight[place] = importance
        label[(slice(None), *place)] = labels_of(place)
        blend.add(place, maps_of(place), labels_of(place))
    first = weights.argmax(dim=0)[None, None].expand(1, 2, *size)
    assert torch.equal(blend.result()[1], labels.gather(0, first)[0])
