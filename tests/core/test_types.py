from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medsegdiff.core.errors import InputError, check_extra, needs_extra, surfacing_input_errors
from medsegdiff.core.types import Geometry

SIZES = np.array([0.8, 1.5, 2.5])


def affine(*, tilt: float = 0.0) -> np.ndarray:
    """Voxels of 0.8 x 1.5 mm in plane, in planes 2.5 mm apart that are moved by the tilt."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(SIZES)
    matrix[1, 2] = 2.5 * np.tan(tilt)
    matrix[:3, :3] = Rotation.from_euler("xyz", [0.2, -0.5, 1.1]).as_matrix() @ matrix[:3, :3]
    return matrix


class TestVoxelVolume:
    @pytest.mark.parametrize("tilt", [0.0, 0.35])
    def test_shear_does_not_change_a_volume(self, tilt: float) -> None:
        geometry = Geometry((4, 5, 6), affine(tilt=tilt))
        assert geometry.voxel_ml == pytest.approx(SIZES.prod() / 1000)

    def test_plane_is_one_millimetre_thick(self) -> None:
        assert Geometry((4, 5), affine()).voxel_ml == pytest.approx(0.8 * 1.5 / 1000)

    def test_mirrored_axis(self) -> None:
        geometry = Geometry((4, 5, 6), affine() @ np.diag([-1, 1, 1, 1]))
        assert geometry.voxel_ml == pytest.approx(SIZES.prod() / 1000)


class TestSurfacingInputErrors:
    def test_wrapped_error_comes_out(self) -> None:
        wrong = InputError("a", "b", "c")
        with pytest.raises(InputError) as caught, surfacing_input_errors():
            try:
                try:
                    raise wrong
                except InputError as error:
                    raise ValueError("inner") from error
            except ValueError as error:
                raise RuntimeError("outer") from error
        assert caught.value is wrong

    def test_fault_while_an_input_error_is_handled_is_a_fault(self) -> None:
        with pytest.raises(KeyError), surfacing_input_errors():
            try:
                raise InputError("a", "b", "c")
            except InputError:
                dict[str, int]()["missing"]


def test_a_package_that_is_missing_is_told_with_its_extra() -> None:
    with (
        pytest.raises(
            InputError, match=r"^--format x: needs the package no-such.*medsegdiff\[x\]'"
        ),
        needs_extra("--format x", "no-such", "x"),
    ):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401


def test_a_package_that_is_missing_is_told_without_importing_it() -> None:
    check_extra("--format x", "pytest", "x")
    with pytest.raises(
        InputError, match=r"^--format x: needs the package no_such_package.*medsegdiff\[x\]'"
    ):
        check_extra("--format x", "no_such_package", "x")
