"""Synthetic cases in training, at a chosen rate."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import WeightedRandomSampler

from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case, Manifest, load_manifest


def synthetic_cases(folder: str | Path | None, manifest: Manifest) -> tuple[Case, ...]:
    """The labelled cases of a data set that ``medsegdiff synthesize`` wrote; none without a folder.

    They belong to no fold: all may be trained on, and none is ever held out.

    Args:
        folder: Folder of the synthetic data set, its ``dataset.json``, or None.
        manifest: Description of the real data.

    Raises:
        InputError: it cannot be read, or its labels, channels or dimensions are not those of the
            real data, or a case bears the name of a real one.
    """
    if folder is None:
        return ()
    found = load_manifest(folder)
    for what in ("labels", "channels", "spatial_dims"):
        if getattr(found, what) != getattr(manifest, what):
            rule = f"has other {what} ({getattr(found, what)}) than {manifest.name}"
            raise InputError(folder, rule, "Draw cases from a model of the same data")
    real = {case.id for case in manifest.cases}
    shared = sorted(case.id for case in found.cases if case.id in real)
    if shared:
        rule = f"names cases as {manifest.name} does, such as {shared[0]}"
        raise InputError(folder, rule, "Give the folder of drawn cases, not the real ones")
    return tuple(case for case in found.cases if case.labels)


def mixed_sampler(
    real: int, synthetic: int, share: float, seed: int = 0
) -> WeightedRandomSampler | None:
    """Draws real and synthetic cases so that ``share`` of them are synthetic on average.

    An epoch has as many draws as there are real cases, so it takes no longer than without. The data
    set lists the real cases first.

    Args:
        real: Number of real cases.
        synthetic: Number of synthetic ones.
        share: Share of synthetic cases among the draws, in [0, 1].
        seed: Seed of the draws.

    Returns:
        The sampler; None without synthetic cases: shuffle then.

    Raises:
        InputError: a share outside of its range.

    Example:
        >>> drawn = list(mixed_sampler(1000, 20, 0.3))
        >>> len(drawn), 250 < sum(index >= 1000 for index in drawn) < 350
        (1000, True)
    """
    if not 0.0 <= share <= 1.0:
        rule = f"must be a share, from 0 to 1. Got {share}"
        raise InputError("synthetic_share", rule, "Give for instance 0.3")
    if not synthetic:
        return None
    weights = [(1.0 - share) / real] * real + [share / synthetic] * synthetic
    generator = torch.Generator().manual_seed(seed)
    return WeightedRandomSampler(weights, real, replacement=True, generator=generator)
