"""Frechet distance, precision and recall, each against another way to compute it."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from medsegdiff.synthesis.image_fidelity import fidelity, share_within


def features(count: int, width: int, shift: float, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """By eigenvalues, which are real whatever the rank: tr (A^1/2 B A^1/2)^1/2."""
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    middle = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0.0)).sum()
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(apart + np.trace(cov_a) + np.trace(cov_b) - 2.0 * middle)


def within(points: np.ndarray, manifold: np.ndarray, neighbours: int) -> float:
    """By scikit-learn's neighbour search, point by point."""
    distances, _ = NearestNeighbors(n_neighbors=neighbours + 1).fit(manifold).kneighbors(manifold)
    radii = distances[:, -1]
    inside = [(np.linalg.norm(manifold - p, axis=1) <= radii).any() for p in points]
    return float(np.mean(inside))


@pytest.mark.parametrize(("count", "width"), [(200, 6), (40, 60)], ids=["full rank", "few images"])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_figures_are_those_of_other_implementations(count: int, width: int, shift: float) -> None:
    real, drawn = features(count, width, 0.0, 1), features(count, width, shift, 2)
    found = fidelity(real, drawn)
    a, b = real.double().numpy(), drawn.double().numpy()
    assert found.frechet == pytest.approx(frechet(a, b), rel=1e-4, abs=1e-5)
    assert found.precision == within(b, a, 3)
    assert found.recall == within(a, b, 3)


def test_the_same_images_are_perfect() -> None:
    real = features(50, 5, 0.0, 0)
    found = fidelity(real, real)
    assert found.frechet == pytest.approx(0.0, abs=1e-6)
    assert found.precision == found.recall == 1.0


def test_one_face_again_and_again_has_precision_but_no_recall() -> None:
    real = features(200, 4, 0.0, 0)
    drawn = real[:1] + 1e-3 * features(200, 4, 0.0, 1)
    found = fidelity(real, drawn)
    assert found.precision > 0.95 and found.recall < 0.05


def test_images_of_elsewhere_have_neither() -> None:
    found = fidelity(features(50, 4, 0.0, 0), features(50, 4, 100.0, 1))
    assert found.precision == found.recall == 0.0 and found.frechet > 1e4


def test_a_ball_reaches_to_the_kth_other() -> None:
    manifold = torch.tensor([[0.0], [1.0], [3.0]])
    assert share_within(torch.tensor([[4.9]]), manifold, 1) == 1.0
    assert share_within(torch.tensor([[5.1]]), manifold, 1) == 0.0
    assert share_within(torch.tensor([[5.1]]), manifold, 2) == 1.0


@pytest.mark.parametrize(("count", "width"), [(3, 4), (10, 5)])
def test_too_few_images_or_other_features_are_refused(count: int, width: int) -> None:
    with pytest.raises(ValueError, match="features"):
        fidelity(features(10, 4, 0.0, 0), features(count, width, 0.0, 0))
