"""Are synthetic pairs like real ones, various, no copies, and of use to a segmenter?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.few_label.labelled_scans import Item, agreement, fit_segmenter, num_classes_of
from medsegdiff.bundle import load_bundle
from medsegdiff.synthesis import aligned_distances, copy_threshold, fidelity, nearest

SPLITS = 10
"""Random halves of the real images; the figures are means over them."""


@torch.no_grad()
def encoder_features(images: Sequence[Tensor], bundle: str = "hippocampus_mr") -> Tensor:
    """(N, D) means over space of the deepest features of a segmenting bundle's encoder.

    The network was trained on the same kind of images, so its features hold what matters in them.

    Args:
        images: Images (C, *spatial), standardised.
        bundle: Name of a bundle with weights.
    """
    parser = load_bundle(bundle).parser("inference")
    encoder = parser.get_parsed_content("network").encoder
    return torch.cat([encoder(x[None]).features[-1].flatten(2).mean(dim=2) for x in images])


def measured_fidelity(
    real: Tensor, drawn: Tensor, held_out: Tensor, seed: int = 0
) -> dict[str, Any]:
    """Fidelity of drawn images, and of real ones against other real ones: the floor.

    Each is of as many images on both sides, the half of the real ones, since the figures depend on
    how many there are.

    Args:
        real: Features (N, D) of the training images.
        drawn: Features (M, D) of drawn images.
        held_out: Features (L, D) of real images that nothing was trained on.
        seed: Seed of the choice of halves.
    """
    size = min(len(real) // 2, len(drawn))
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[tuple[float, ...]]] = {"drawn": [], "real": [], "held_out": []}
    for _ in range(SPLITS):
        order = torch.randperm(len(real), generator=generator)
        one, other = real[order[:size]], real[order[size : 2 * size]]
        some = drawn[torch.randperm(len(drawn), generator=generator)[:size]]
        found["drawn"].append(fidelity(one, some))
        found["real"].append(fidelity(one, other))
        few = min(size, len(held_out))
        found["held_out"].append(fidelity(one[:few], held_out[:few]))
    names = ("frechet", "precision", "recall")
    means = {
        kind: {
            n: float(torch.tensor(v).mean())
            for n, v in zip(names, zip(*rows, strict=True), strict=True)
        }
        for kind, rows in found.items()
    }
    return {"images_a_side": size, "held_out_a_side": min(size, len(held_out)), **means}


def measured_copies(real: Tensor, drawn: Tensor) -> dict[str, Any]:
    """Distances to the nearest training image, of drawn and, leaving out itself, of real images.

    Args:
        real: Training images (N, C, *spatial).
        drawn: Drawn images (M, C, *spatial) that were kept.
    """
    how: dict[str, Any] = {"shift": 2, "coarse": 2, "mirror_axes": [0]}
    of_real, _ = nearest(aligned_distances(real, real, **how), same=True)
    of_drawn, _ = nearest(aligned_distances(drawn, real, **how))
    threshold = copy_threshold(of_real, 1.0)
    return {
        "copy_distance": threshold,
        "copies": int((of_drawn < threshold).sum()),
        "median_real": float(of_real.median()),
        "median_drawn": float(of_drawn.median()),
        "least_drawn": float(of_drawn.min()),
        "real": sorted(of_real.tolist()),
        "drawn": sorted(of_drawn.tolist()),
    }


def mixed(labelled: Sequence[Item], pairs: Sequence[Item], share: float) -> list[Item]:
    """Labelled items, repeated so that ``share`` of all is pairs, about.

    Example:
        >>> len(mixed([{}] * 5, [{}] * 60, 0.5))
        120
    """
    if not pairs:
        return list(labelled)
    repeats = max(1, round(len(pairs) * (1.0 - share) / share / len(labelled)))
    return [*list(labelled) * repeats, *pairs]


def dice_of(items: Sequence[Item], held_out: Sequence[Item], minutes: float, seed: int) -> float:
    """Mean held-out Dice of a U-Net trained on items for so long."""
    torch.manual_seed(seed)
    segmenter: nn.Module = fit_segmenter(items, num_classes_of(items), 60.0 * minutes)
    scores = [agreement(segmenter, one, num_classes_of(items)) for one in held_out]
    return sum(scores) / len(scores)


def drawn_cases(cases: Sequence[Any], count: int, draw: int) -> tuple[list[Any], list[Any]]:
    """Cases that are taken as labelled in a draw, and the others."""
    order = list(cases)
    random.Random(draw).shuffle(order)
    return order[:count], order[count:]
