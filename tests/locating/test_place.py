"""A place cut out of a scan: the right voxels, and back again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, Spacingd
from scipy.spatial.transform import Rotation

from medsegdiff.core.errors import InputError
from medsegdiff.data.transforms import restore
from medsegdiff.locating.place import Place, Uprightd, cut_out

TURN = Rotation.from_euler("xyz", (25.0, -10.0, 15.0), degrees=True).as_matrix()


def scan(axes: np.ndarray | None = None) -> MetaTensor:
    """A ramp along the world's axes, of 2 x 1 x 1.5 mm voxels."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if axes is None else axes) @ np.diag([-2.0, 1.0, 1.5])
    affine[:3, 3] = (40.0, -30.0, 10.0)
    index = np.stack(np.meshgrid(*map(np.arange, (40, 60, 40)), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    values = torch.as_tensor((world @ [1.0, 10.0, 100.0])[None], dtype=torch.float32)
    meta = {"spatial_shape": np.array(values.shape[1:])}
    return MetaTensor(values, affine=torch.as_tensor(affine), meta=meta)


def test_the_part_holds_the_place_and_knows_where_it_lies() -> None:
    whole, place = scan(), Place("left", (0.0, 0.0, 40.0), (10.0, 12.0, 14.0))
    part = cut_out(whole, place)
    assert torch.equal(part.image.as_tensor(), whole[(slice(None), *part.box)].as_tensor())
    affine = np.asarray(part.image.affine)
    middle = np.array([(n - 1) / 2 for n in part.image.shape[1:]])
    assert affine[:3, :3] @ middle + affine[:3, 3] == pytest.approx(place.centre, abs=1.5)
    extent = np.array(part.image.shape[1:]) * [2.0, 1.0, 1.5]
    assert (extent >= place.size).all() and (extent <= np.array(place.size) + 5.0).all()


@pytest.mark.parametrize("centre", [(300.0, 0.0, 40.0), (41.0, 0.0, 40.0)])
def test_a_place_outside_is_refused(centre: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match=r"outside the scan.*--at X,Y,Z"):
        cut_out(scan(), Place("", centre, (20.0, 20.0, 20.0)))


def test_a_place_at_the_border_is_cut_off_there() -> None:
    part = cut_out(scan(), Place("", (38.0, 0.0, 40.0), (20.0, 20.0, 20.0)))
    assert part.box[0].start == 0


@pytest.mark.parametrize("axes", [np.eye(3), TURN], ids=["straight", "turned"])
def test_a_turned_place_is_seen_upright_and_brought_back(axes: np.ndarray) -> None:
    place = Place("", (2.0, 3.0, 44.0), (16.0, 20.0, 18.0), axes)
    part = cut_out(scan(), place)
    chain = Compose(
        [
            Uprightd("image", part),
            Orientationd("image", "RAS", labels=None),
            Spacingd("image", (1.0, 1.0, 1.0), mode="bilinear"),
        ]
    )
    seen = chain({"image": part.image})["image"]
    directions = np.asarray(seen.affine)[:3, :3]
    assert directions == pytest.approx(np.eye(3), abs=1e-6)  # its own axes, of 1 mm
    back = restore(seen.as_tensor(), seen, chain)
    inner = (slice(None), *(slice(n // 3, n - n // 3) for n in part.image.shape[1:]))
    assert back.shape == part.image.shape
    assert np.abs(back[inner] - part.image.as_tensor().numpy()[inner]).max() < 60.0  # of 4,000
    assert (
        np.corrcoef(back[inner].ravel(), part.image.as_tensor().numpy()[inner].ravel())[0, 1]
        > 0.999
    )


def test_a_turned_place_is_resampled_once_and_hardly_blurred() -> None:
    whole = scan()
    index = np.stack(np.meshgrid(*map(np.arange, whole.shape[1:]), indexing="ij"), axis=-1)
    affine = np.asarray(whole.affine)
    waves = lambda world: np.cos(2 * np.pi * world / 8.0).prod(axis=-1)  # noqa: E731
    whole[0] = torch.as_tensor(waves(index @ affine[:3, :3].T + affine[:3, 3]))
    part = cut_out(whole, Place("", (2.0, 3.0, 44.0), (16.0, 20.0, 18.0), TURN))
    spacing = (1.0, 1.0, 1.0)
    resampling = Spacingd("image", spacing, mode="nearest")  # would be seen, if it did anything
    chain = Compose([Uprightd("image", part, spacing), resampling])
    seen = chain({"image": part.image})["image"]
    assert seen.shape[1:] == (16, 20, 18)
    local = np.stack(np.meshgrid(*map(np.arange, seen.shape[1:]), indexing="ij"), axis=-1)
    offset = (local - (np.array(seen.shape[1:]) - 1) / 2) @ TURN.T
    wrong = np.abs(seen[0].numpy() - waves(offset + part.place.centre))
    assert wrong[2:-2, 2:-2, 2:-2].mean() < 0.02  # 0.09 by linear interpolation


def test_the_box_encloses_a_turned_place() -> None:
    place = Place("left", (1.0, 2.0, 3.0), (2.0, 4.0, 6.0), TURN)
    low, high = place.box_mm
    assert all(a < c < b for a, b, c in zip(low, high, place.centre, strict=True))
    assert place.turned_in(np.eye(4))


def test_a_place_along_the_grid_is_not_turned_however_the_grid_lies() -> None:
    grid = np.eye(4)
    grid[:3, :3] = TURN * 2.0
    place = Place("", (0.0, 0.0, 0.0), (2.0, 4.0, 6.0), TURN)
    assert not place.turned_in(grid)
    assert not Place("", (0.0, 0.0, 0.0), (2.0, 4.0, 6.0)).turned_in(grid)
    lying = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # on its side
    assert Place("", (0.0, 0.0, 0.0), (2.0, 4.0, 6.0), lying).turned_in(np.eye(4))
