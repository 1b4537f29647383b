from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.viz.pictures import members_picture, save_png


def masks(dims: int, count: int) -> np.ndarray:
    """Cubes around the middle, the n-th of half width 2 + n, from the last to the first."""
    grid = np.stack(np.meshgrid(*[np.arange(20) - 10] * dims, indexing="ij"))
    reach = np.abs(grid).max(axis=0)
    return np.stack([reach <= 2 + n for n in reversed(range(count))]).astype(np.uint8)


@pytest.mark.parametrize("dims", [2, 3])
def test_members_are_shown_from_the_smallest_to_the_largest(dims: int, tmp_path: Path) -> None:
    members = masks(dims, 6)
    mean = members.mean(axis=0)
    figure = members_picture(mean, members, mean, mean * (1 - mean), [1.0] * dims, most=3)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles[0] == "Image" and titles[-2:] == ["Mean", "Variance"]
    shown = [int(title.split()[1]) - 1 for title in titles[1:-2]]
    assert len(shown) == 3
    volumes = [int(members[n].sum()) for n in shown]
    assert volumes == sorted(volumes)
    assert (volumes[0], volumes[-1]) == (int(members[-1].sum()), int(members[0].sum()))
    save_png(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_what_is_drawn_is_the_mean_of_the_slice_with_most() -> None:
    members = np.zeros((2, 8, 9, 10), np.uint8)
    members[:, 2:5, 3:6, 7] = 1
    members[0, 2:5, 3:6, 2] = 1
    members[1, 2, 3, 7] = 0
    mean = members.mean(axis=0)
    figure = members_picture(mean, members, mean, mean * (1 - mean), (1.0, 1.0, 2.0))
    drawn = np.asarray(figure.axes[-2].images[0].get_array())
    assert sorted(drawn.ravel()) in (sorted(mean[..., 2].ravel()), sorted(mean[..., 7].ravel()))
    assert drawn.shape == (9, 8)


def test_shapes_have_to_agree() -> None:
    members = masks(2, 2)
    with pytest.raises(ValueError, match="shape"):
        members_picture(members[0], members, members[0], members[0][:5], (1.0, 1.0))
