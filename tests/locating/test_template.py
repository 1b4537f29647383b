"""Registration to a template: heads of ellipsoids, turned, moved and stretched."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medsegdiff.core.errors import InputError
from medsegdiff.locating import template as module
from medsegdiff.locating.template import TemplateLocator

SPOTS = {"left": (-26.0, -20.0, -14.0), "right": (26.0, -20.0, -14.0)}
MM = 4.0
SIZE = (36.0, 52.0, 38.0)


def head(seed: int = 0, mm: float = MM) -> tuple[np.ndarray, np.ndarray]:
    """Intensities and affine of a head-like object around the world's origin."""
    half = np.array([80.0, 100.0, 84.0])
    shape = np.ceil(2 * half / mm).astype(int)
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = -half
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    x = index * mm - half
    inside = lambda centre, radii: (((x - centre) / radii) ** 2).sum(-1) < 1.0  # noqa: E731
    values = 60.0 * inside((0, 0, 0), (68, 86, 70)) + 40.0 * inside((0, 0, 0), (60, 76, 62))
    values -= 70.0 * inside((0, 10, 5), (8, 35, 14))
    values -= 30.0 * inside((0, -50, -35), (42, 22, 20))
    values += 20.0 * inside((0, 40, 20), (30, 20, 30))
    values += 30.0 * inside((0, 5, -40), (12, 12, 30))
    for centre in SPOTS.values():
        values -= 25.0 * inside(centre, (8, 18, 8))
    noise = np.random.default_rng(seed).normal(0.0, 3.0, values.shape)
    return np.clip(ndimage.gaussian_filter(values, 1.0) + noise, 0, None).astype(np.float32), affine


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("template") / "head.nii.gz"
    nib.save(nib.Nifti1Image(*head()), path)
    return str(path)


def as_scan(values: np.ndarray, affine: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.as_tensor(values)[None], affine=torch.as_tensor(affine))


@pytest.mark.parametrize("angle", [0.0, 20.0])
@pytest.mark.parametrize("axcodes", ["RAS", "PIL"])
def test_places_are_found_however_the_head_lies(template: str, axcodes: str, angle: float) -> None:
    values, affine = head(seed=1)
    moved = np.eye(4)
    turn = Rotation.from_euler("xz", (angle, -angle / 2), degrees=True).as_matrix()
    moved[:3, :3], moved[:3, 3] = turn * 1.06, (30.0, -110.0, 60.0)
    image = nib.Nifti1Image(values, moved @ affine)
    ornt = nib.orientations.axcodes2ornt(tuple(axcodes))
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), ornt)
    )
    found = TemplateLocator(SPOTS, SIZE, template)(
        as_scan(np.asarray(turned.dataobj).copy(), turned.affine)
    )
    assert found.by == "template" and found.score is not None and found.score > 0.3
    for place in found.places:
        truth = moved[:3, :3] @ SPOTS[place.name] + moved[:3, 3]
        assert np.linalg.norm(np.array(place.centre) - truth) < 4.0
        assert Rotation.from_matrix(place.axes @ turn.T).magnitude() < np.deg2rad(6.0)


def test_the_axes_are_those_of_images_in_which_the_body_part_lies_otherwise(template: str) -> None:
    values, affine = head(seed=1)
    lying = (12.0, 0.0, -5.0)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", lying, degrees=True).as_matrix()
    found = TemplateLocator(SPOTS, SIZE, template, lying=lying)(as_scan(values, turned @ affine))
    for place in found.places:
        assert Rotation.from_matrix(place.axes).magnitude() < np.deg2rad(6.0)


@pytest.mark.parametrize("kind", ["noise", "ball", "small"])
def test_what_is_no_head_is_refused(template: str, kind: str) -> None:
    values, affine = head()
    rng = np.random.default_rng(0)
    if kind == "noise":
        values = rng.normal(100.0, 20.0, values.shape).astype(np.float32)
    if kind == "ball":
        index = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), axis=-1)
        near = ((index - np.array(values.shape) / 2) ** 2).sum(-1) < 8**2
        values = (100.0 * near + rng.normal(0, 2, values.shape)).astype(np.float32)
    if kind == "small":
        values = values[:2, :2, :2]
    with pytest.raises(InputError, match="--at X,Y,Z"):
        TemplateLocator(SPOTS, SIZE, template)(as_scan(values, affine))


def test_a_template_that_is_missing() -> None:
    module.read_template.cache_clear()
    with pytest.raises(InputError, match="cannot be read as the template"):
        TemplateLocator(SPOTS, SIZE, "nowhere.nii.gz")(as_scan(*head()))
