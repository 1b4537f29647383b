"""The arrays of a case for display are those of its files, on the input's grid."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medsegdiff.core.types import Geometry
from medsegdiff.evaluation import case_view
from medsegdiff.evaluation.case_view import CaseView, read_case_view

RNG = np.random.default_rng(0)
LPS = np.diag([-1.0, -2.0, 3.0, 1.0])


def viewed(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    spatial_dims: int,
    channels: int = 1,
    file: str = "a.nii.gz",
    **changed: Any,
) -> tuple[CaseView, Any, np.ndarray, np.ndarray]:
    """A case that is read from arrays; its prediction, annotations and channels."""
    annotations = RNG.integers(0, 3, (3, *shape), dtype=np.uint8)
    image = RNG.random((channels, *shape)).astype(np.float32)
    maps = {slug: RNG.random(shape).astype(np.float32) for slug in ("head", "tail")}
    prediction = SimpleNamespace(
        seg=annotations[0], members=annotations[1:], mean=maps, variance=maps
    )
    vars(prediction).update(changed)
    case: Any = SimpleNamespace(id="a", images=(Path(file),))
    labels = {0: "background", 1: "Head", 2: "Tail"}
    manifest: Any = SimpleNamespace(
        labels=labels, spatial_dims=spatial_dims, channels=("x",) * channels
    )

    def predicted(folder: Path, name: str, classes: Any, geometry: Geometry) -> Any:
        assert (folder, name, geometry.shape) == (Path("out/a"), "a", shape)
        assert classes == {1: "head", 2: "tail"}
        return prediction

    def read(images: Any, *given: Any) -> Any:
        assert (images, given) == (case.images, (spatial_dims, channels))
        return image, None

    monkeypatch.setattr(case_view, "read_reference", lambda *_: (annotations, Geometry(shape, LPS)))
    monkeypatch.setattr(case_view, "read_prediction", predicted)
    monkeypatch.setattr(case_view, "read_channels", read)
    return read_case_view(case, manifest, Path("out")), prediction, annotations, image


@pytest.mark.parametrize(("dims", "stack"), [(2, True), (3, False)])
def test_a_volume(dims: int, stack: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, prediction, annotations, image = viewed(monkeypatch, (5, 4, 3), dims, channels=2)
    np.testing.assert_array_equal(shown.image, image[0])  # the first channel
    assert shown.annotations is annotations and shown.seg is prediction.seg
    assert shown.members is prediction.members
    votes = np.stack([(annotations == k).sum(axis=0) for k in (1, 2)])
    expected = np.where(votes.max(axis=0) > 1.5, votes.argmax(axis=0) + 1, 0)
    np.testing.assert_array_equal(shown.reference, expected)
    assert shown.mean == {1: prediction.mean["head"], 2: prediction.mean["tail"]}
    assert shown.variance is not None
    np.testing.assert_allclose(shown.variance, sum(prediction.variance.values()))
    assert (shown.axes, shown.stack) == ("LPS", stack)
    assert shown.geometry.shape == (5, 4, 3)


def test_a_plane_has_two_axes_and_is_no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, *_ = viewed(monkeypatch, (5, 4), 2)
    assert (shown.axes, shown.stack) == ("LP", False) and shown.image.shape == (5, 4)


@pytest.mark.parametrize(("channels", "shape"), [(3, (5, 4, 3)), (1, (5, 4))])
def test_a_photograph_has_colours_and_no_directions(
    channels: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, _, _, image = viewed(monkeypatch, (5, 4), 2, channels, "a.png")
    assert shown.axes == "" and shown.image.shape == shape
    np.testing.assert_array_equal(shown.image.reshape(5, 4, -1), np.moveaxis(image, 0, -1))
    scan, *_ = viewed(monkeypatch, (5, 4), 2, channels)
    assert scan.image.shape == (5, 4)


def test_maps_that_are_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    one = np.zeros((5, 4), np.float32)
    shown, *_ = viewed(monkeypatch, (5, 4), 2, mean={"tail": one}, variance={}, members=None)
    assert list(shown.mean) == [2] and shown.mean[2] is one
    assert shown.variance is None and shown.members is None


def test_slices_are_chosen_by_errors_and_variance() -> None:
    def view(seg: list[int], reference: list[int], variance: list[float] | None) -> CaseView:
        maps = None if variance is None else np.array(variance, np.float32)
        arrays = np.array(seg, np.uint8), np.array(reference, np.uint8)
        geometry = Geometry((3,), np.eye(4))
        image = np.zeros(3, np.float32)
        return CaseView(
            image, arrays[1][None], arrays[1], arrays[0], None, {}, maps, geometry, "", False
        )

    wrong = view([1, 0, 0], [1, 1, 0], [0.1, 0.2, 0.0]).doubtful
    np.testing.assert_allclose(wrong, [0.1, 1.2, 0.0])
    np.testing.assert_array_equal(view([1, 0, 0], [1, 1, 0], None).doubtful, [0, 1, 0])
    # where all agree, the inside of either
    np.testing.assert_array_equal(view([0, 2, 0], [0, 2, 0], [0.0] * 3).doubtful, [0, 1, 0])
    assert not view([0] * 3, [0] * 3, None).doubtful.any()
