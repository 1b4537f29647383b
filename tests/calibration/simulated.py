"""Simulated ensembles: balls whose true probability is known, and a model that distorts it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from medsegdiff.calibration.voxels import CaseVoxels, sampled_voxels
from medsegdiff.metrics.calibration_error import region_of_interest


@dataclass(frozen=True)
class Simulation:
    """How images, references and the model's probabilities are made.

    Attributes:
        shape: Size of an image in voxels.
        radius: Mean radius of the structure, as a share of the shortest side.
        classes: Foreground classes, each a ball of its own.
        sharp: Width of the border in which a voxel's class is uncertain, in voxels.
        boldness: Factor on the logits: above 1 the model is too sure of itself.
        haze: Probability that the model gives to background far from anything.
        shift: Standard deviation of the shift of a case's logits, which no scaling can mend.
        absent: Share of cases without the structure.
    """

    shape: tuple[int, ...] = (48, 48)
    radius: float = 0.25
    classes: int = 1
    sharp: float = 2.0
    boldness: float = 1.0
    haze: float = 0.0
    shift: float = 0.0
    absent: float = 0.0

    def cases(self, n: int, seed: int) -> list[CaseVoxels]:
        """So many cases, each of a patient of its own."""
        rng = np.random.default_rng(seed)
        return [self.case(f"case {i}", rng) for i in range(n)]

    def case(self, name: str, rng: np.random.Generator) -> CaseVoxels:
        """One case."""
        grid = np.stack(np.meshgrid(*(np.arange(s) for s in self.shape), indexing="ij"))
        side = min(self.shape)
        said, marked = [], np.zeros(self.shape, np.uint8)
        for k in range(1, self.classes + 1):
            radius = self.radius * side * rng.uniform(0.7, 1.3) / self.classes
            low, high = radius + 1, np.array(self.shape) - radius - 1
            centre = rng.uniform(np.minimum(low, high), np.maximum(low, high))
            away = np.sqrt(((grid.T - centre).T ** 2).sum(axis=0))
            z = (radius - away) / self.sharp
            there = rng.random() >= self.absent
            marked[(z + logit(rng.uniform(0.02, 0.98)) > 0) & there & (marked == 0)] = k
            own = expit(self.boldness * z + self.shift * rng.normal()) if there else 0.0 * z
            said.append(np.maximum(own, self.haze * rng.uniform(0.5, 1.5)))
        p = np.stack([np.prod([1.0 - one for one in said], axis=0), *said])
        regions = [region_of_interest(marked > 0)]
        regions += [region_of_interest(marked == k) for k in range(1, self.classes + 1)]
        share = np.stack([marked == k for k in range(self.classes + 1)])
        return sampled_voxels(
            name, name, p / p.sum(axis=0), share, marked, regions, (1.0,) * len(self.shape)
        )
