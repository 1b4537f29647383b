"""Distances of drawn images to the nearest training image, beside those between real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from medsegdiff.core.atomic_files import written_aside

REAL, DRAWN = "#0072B2", "#E69F00"  # of Okabe and Ito's palette


def distance_chart(real: Sequence[float], drawn: Sequence[float], threshold: float) -> Figure:
    """Two histograms over one axis, and the line left of which an image counts as a copy.

    Args:
        real: Distance of each real image to the nearest other one.
        drawn: Distance of each drawn image to the nearest real one.
        threshold: Distance below which an image is a copy.
    """
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    both = [*real, *drawn, threshold]
    bins = np.linspace(min(both), max(both) + 1e-6, 25).tolist()
    for values, colour, name in (
        (real, REAL, f"real to nearest other real (n = {len(real)})"),
        (drawn, DRAWN, f"drawn to nearest training (n = {len(drawn)})"),
    ):
        weights = np.full(len(values), 1.0 / max(len(values), 1))
        axes.hist(values, bins=bins, weights=weights, color=colour, alpha=0.6, label=name)
    axes.axvline(threshold, color="#D55E00", linestyle="--", label=f"copy below {threshold:.3f}")
    axes.set_xlabel("distance after alignment (root mean square of standardised images)")
    axes.set_ylabel("share of images")
    axes.legend(fontsize=8, frameon=False)
    return figure


def save_distance_chart(
    path: Path, real: Sequence[float], drawn: Sequence[float], threshold: float
) -> None:
    """Write the chart as PNG, whole or not at all."""
    with written_aside(path) as aside:
        distance_chart(real, drawn, threshold).savefig(aside, dpi=120)
