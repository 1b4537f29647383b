"""A copy is near its original, moved, mirrored or brightened; another image is not."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from medsegdiff.synthesis.copies import aligned_distances, copy_threshold, nearest
from medsegdiff.synthesis.copies_chart import distance_chart

SIZES = [(24, 20), (16, 20, 16)]


def images(size: tuple[int, ...], count: int = 4) -> torch.Tensor:
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal(size), 1.5, mode="wrap") for _ in range(count)]
    return torch.tensor(np.stack(fields), dtype=torch.float32)[:, None]


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
@pytest.mark.parametrize("change", ["none", "shifted", "mirrored", "brighter", "noisy"])
def test_copies_are_found(size: tuple[int, ...], change: str) -> None:
    real = images(size)
    copy = real[2:3].clone()
    if change == "shifted":
        copy = copy.roll((2, -1), dims=(2, 3))
    if change == "mirrored":
        copy = copy.flip(2)
    if change == "brighter":
        copy = 3.0 * copy + 7.0
    if change == "noisy":
        copy = copy + 0.1 * copy.std() * torch.randn_like(copy)
    distance, index = nearest(aligned_distances(copy, real, shift=2, mirror_axes=[0]))
    assert index.item() == 2 and distance.item() < (0.15 if change == "noisy" else 1e-2)
    between, _ = nearest(aligned_distances(real, real, shift=2, mirror_axes=[0]), same=True)
    assert distance < copy_threshold(between, 1.0) and between.min() > 0.5


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_distance_is_that_of_the_definition(size: tuple[int, ...]) -> None:
    x, y = images(size, 2).numpy()[:, 0]
    best = np.inf
    middle = x[(slice(1, -1),) * len(size)]
    middle = (middle - middle.mean()) / middle.std()
    for starts in np.ndindex(*[3] * len(size)):
        place = tuple(slice(a, a + n - 2) for a, n in zip(starts, size, strict=True))
        other = (y[place] - y[place].mean()) / y[place].std()
        best = min(best, float(np.sqrt(np.mean((middle - other) ** 2))))
    found = aligned_distances(*images(size, 2)[:, None], shift=1)
    assert found.shape == (1, 1) and found.item() == pytest.approx(best, abs=1e-3)


def test_a_mirror_image_is_another_where_that_is_not_asked() -> None:
    real = images((24, 20))
    assert aligned_distances(real[:1].flip(2), real[:1]).item() > 0.5


def test_leaving_out_finds_the_other_one() -> None:
    distances = torch.tensor([[0.0, 0.4, 0.9], [0.4, 0.0, 0.3], [0.9, 0.3, 0.0]])
    values, indices = nearest(distances, same=True)
    assert indices.tolist() == [1, 2, 1]
    torch.testing.assert_close(values, torch.tensor([0.4, 0.3, 0.3]))


def test_percentile_is_numpys() -> None:
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert copy_threshold(values, 10.0) == pytest.approx(np.percentile(values.numpy(), 10.0))


def test_images_of_two_grids_and_shifts_of_all_are_refused() -> None:
    with pytest.raises(ValueError, match="one grid"):
        aligned_distances(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9))
    with pytest.raises(ValueError, match="leaves nothing"):
        aligned_distances(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), shift=2, coarse=2)


def test_chart_shows_both_and_the_limit() -> None:
    figure = distance_chart([0.4, 0.5, 0.6], [0.7], 0.41)
    assert isinstance(figure, Figure)
    (legend,) = [axes.get_legend() for axes in figure.axes]
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert [("n = 3" in t, "n = 1" in t, "0.410" in t) for t in texts].count((False,) * 3) == 0
