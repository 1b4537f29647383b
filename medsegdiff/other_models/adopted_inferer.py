"""An inferer that takes the maps of an ensemble from files: another program has drawn them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from medsegdiff.core.sampling_settings import BINDING
from medsegdiff.core.storage import Storage
from medsegdiff.core.types import Fusion
from medsegdiff.other_models.predicted import Maps
from medsegdiff.segmentation.ensemble import Ensemble, RunningMoments, most_probable


def adopted_settings(members: int) -> dict[str, Any]:
    """The settings of an ensemble that another program drew: nothing is known but its members.

    Args:
        members: Number of members of each case.
    """
    unknown: dict[str, Any] = dict.fromkeys((*BINDING, "seed", "precision"))
    return unknown | {"members": members, "fusion": AdoptedInferer.fusion}


class AdoptedInferer:
    """Gives the statistics of maps that are there already; see ``CaseInferer``.

    Of one member alone there is no variance over members. Its place takes the variance p (1 - p)
    of whether a voxel is of the class, which is the greatest that members with this mean can have.

    Args:
        members: Functions that read the maps (K, *shape) of each member.
    """

    fusion: Fusion = "mean"

    def __init__(self, members: Sequence[Callable[[], Maps]]) -> None:
        self.members = tuple(members)

    @property
    def settings(self) -> dict[str, Any]:
        """See ``EnsembleInferer.settings``."""
        return adopted_settings(len(self.members))

    def check(self, network: Any) -> None:
        """There is nothing to refuse: no network is used."""

    def ensemble(
        self,
        image: Tensor,
        network: Any,
        case: str,
        storage: Storage | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ensemble:
        """Statistics of the members on the grid of the image; see ``EnsembleInferer``.

        Raises:
            InputError: the maps of a member cannot be used.
        """
        started, moments, labels = time.perf_counter(), RunningMoments(), []
        for number, read in enumerate(self.members, start=1):
            maps = torch.from_numpy(read())[None]
            moments.update(maps)
            labels.append(most_probable(maps)[0])
            if progress:
                progress(number, len(self.members))
        mean = moments.mean
        variance = moments.variance if len(self.members) > 1 else mean * (1.0 - mean)
        seconds = {"encode": 0.0, "sample": time.perf_counter() - started}
        return Ensemble(mean, variance, None, torch.stack(labels), seconds=seconds)
