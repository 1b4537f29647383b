from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medsegdiff.phantoms.anatomy import (
    Arrangement,
    Raters,
    class_probabilities,
    draw_annotation,
    make_anatomy,
    make_image,
    smooth_field,
)

MODELS = {
    "shift": Raters(shift_mm=1.5, field_mm=0.0),
    "field": Raters(shift_mm=0.0, field_mm=1.5),
    "both, and a lesion often missed": Raters(shift_mm=0.8, field_mm=0.8, omission=0.4),
}


def levels_of(
    spatial_dims: int, classes: int, arrangement: Arrangement = "adjacent", seed: int = 3
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return make_anatomy(rng, spatial_dims, classes, 14, arrangement)[1]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("arrangement", ["adjacent", "nested"])
@pytest.mark.parametrize(("spatial_dims", "classes"), [(2, 1), (2, 3), (3, 2)])
def test_mean_of_many_readings_is_the_probability(
    spatial_dims: int, classes: int, arrangement: Arrangement, model: Raters
) -> None:
    levels = levels_of(spatial_dims, classes, arrangement)
    expected = class_probabilities(levels, model)
    rng = np.random.default_rng(0)
    count = 800
    annotations = np.stack([draw_annotation(levels, model, rng) for _ in range(count)])
    found = np.stack([(annotations == k).mean(axis=0) for k in range(classes + 1)])
    error = np.sqrt(expected * (1 - expected) / count)
    assert ((found > 0) <= (expected > 0)).all()
    assert (np.abs(found - expected) <= 5.5 * error + 2 / count).all()


@pytest.mark.parametrize("model", [*MODELS.values(), Raters(0.0, 0.0)])
def test_probabilities_sum_to_one(model: Raters) -> None:
    probabilities = class_probabilities(levels_of(3, 3, "nested"), model)
    assert probabilities.shape[0] == 4
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=0), 1.0, atol=1e-12)


def test_raters_without_error_agree_on_the_anatomy() -> None:
    levels, model = levels_of(3, 2), Raters(0.0, 0.0)
    annotations = [draw_annotation(levels, model, np.random.default_rng(i)) for i in range(3)]
    assert np.array_equal(annotations[0], annotations[1])
    assert np.array_equal(annotations[0], class_probabilities(levels, model).argmax(axis=0))


def test_omission_is_as_frequent_as_said() -> None:
    levels, rng = levels_of(2, 2, "nested"), np.random.default_rng(1)
    model = Raters(0.1, 0.1, omission=0.3)
    missed = [2 not in draw_annotation(levels, model, rng) for _ in range(1000)]
    assert np.mean(missed) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("arrangement", ["adjacent", "nested"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_structure_is_there_and_none_touches_the_edge(
    spatial_dims: int, arrangement: Arrangement
) -> None:
    for seed in range(5):
        levels = levels_of(spatial_dims, 3, arrangement, seed)
        label = draw_annotation(levels, Raters(0.0, 0.0), np.random.default_rng(0))
        assert set(np.unique(label)) == {0, 1, 2, 3}
        inner = label[(slice(1, -1),) * spatial_dims]
        assert np.count_nonzero(inner) == np.count_nonzero(label)


@pytest.mark.parametrize("shape", [(16, 20), (8, 9, 10)])
def test_field_has_unit_variance_everywhere(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field(shape, 1.5, rng) for _ in range(800)])
    np.testing.assert_allclose(fields.mean(axis=0), 0.0, atol=0.2)
    np.testing.assert_allclose(fields.std(axis=0), 1.0, atol=0.15)
    flat = fields.reshape(len(fields), -1)
    assert np.corrcoef(flat[:, 0], flat[:, 1])[0, 1] > 0.5  # neighbours


def test_channels_show_the_structures_with_different_contrast() -> None:
    levels = levels_of(3, 3, "adjacent")
    label = draw_annotation(levels, Raters(0.0, 0.0), np.random.default_rng(0))
    order = []
    for channel in range(4):
        image = make_image(levels, channel, np.random.default_rng(channel))
        smooth = gaussian_filter(image.astype(float), 0.5)
        means = [smooth[label == k].mean() for k in range(4)]
        assert min(means[1:]) > means[0]
        order.append(tuple(np.argsort(means)))
    assert len(set(order)) > 1


def test_background_noise_is_rician() -> None:
    """Far outside the body there is noise alone: Rayleigh, mean / deviation = 1.913."""
    levels = np.full((1, 48, 48, 48), -1.0)
    image = make_image(levels, 0, np.random.default_rng(0))
    corner = np.concatenate([image[:5, :5].ravel(), image[-5:, -5:].ravel()]).astype(float)
    assert corner.min() >= 0
    assert corner.mean() / corner.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.06)
