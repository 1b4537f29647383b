"""The ensemble of one image, window by window, all members of a window as one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal, get_args

import torch
from monai.inferers import Inferer
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.core.storage import Storage
from medsegdiff.core.types import Fusion
from medsegdiff.diffusion.samplers import make_sampler
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.segmentation.blend import Blend, Place, places_of
from medsegdiff.segmentation.ensemble import (
    Ensemble,
    RunningMoments,
    WindowProgress,
    most_probable,
    stack_slices,
)
from medsegdiff.segmentation.fusion import StepUncertainty, fuse
from medsegdiff.segmentation.noise import MemberNoise, blocks_of
from medsegdiff.segmentation.representatives import jaccard_distances, representatives

LOWEST: str = "lowest"
ROUNDING = 1e-6
"""Share of an image's range by which its background may vary."""


class EnsembleInferer(Inferer):
    """Samples ``members`` masks of an image and keeps their statistics.

    An image larger than the window is cut into overlapping windows; each is encoded once, its
    members are sampled together, and the statistics are blended with Gaussian weights. Overlapping
    windows share each member's noise where they overlap; a member's label map is taken, voxel by
    voxel, from the window whose centre is nearest, and may still show a seam.

    Args:
        window: Largest size of a window, one value for each spatial axis of the network, in voxels.
        members: Number N of members.
        steps: Number of steps of the time grid, which is the number of denoiser evaluations for
            each member (``heun``: 2 ``steps`` - 1).
        sampler: Name of a sampler in ``diffusion.samplers``.
        sampler_options: Further arguments of the sampler, such as ``{"eta": 1.0}``.
        warm_start: Fraction of the time steps to begin at, in (0, 1]. Below 1, members begin with
            the anchor's mask, noised to that step.
        overlap: Overlap of neighbouring windows, as a fraction in [0, 1).
        mirror_axes: Spatial axes along which anatomy may be mirrored. The members are shared out
            over all mirror images, each encoded once, and mirrored back; the anchor is the mean
            of theirs.
        member_batch: Number of members sampled at once; it bounds the memory and changes no result.
        seed: Seed of the run.
        fusion: Rule that makes one mask of the members; see ``segmentation.fusion``.
        anchor_share: Share of the anchor in the mean probability, in [0, 1]. The anchor estimates
            the same mean as the members do, without the noise of a few samples. The variance is
            that of the members alone.
        noise_scale: Standard deviation of the members' noise.
        empty_up_to: Largest value of background; a window without any greater value is background
            for sure and is not run. A number in the image's scale; ``lowest``: the image's lowest
            value, which padding, masking or clipping leave around a body; None: all windows are
            run. An image of one window is always run.
        oversampling: Number of samples drawn for each member that is kept. Above 1 the N members
            that represent all best are kept (``segmentation.representatives``); mean and variance
            are over all samples. Members are chosen for an image as a whole; for a volume taken
            slice by slice, by the mean distance over the slices.
        diversity_weight: Weight in [0, 1] of the members' diversity when they are chosen; 1: as
            diverse as all samples. It has no effect without oversampling.

    Raises:
        ValueError: an argument is out of its range, or a name is unknown.
    """

    def __init__(
        self,
        window: Sequence[int],
        members: int = 16,
        steps: int = 4,
        sampler: str = "ddim",
        sampler_options: dict[str, float] | None = None,
        warm_start: float = 1.0,
        overlap: float = 0.25,
        mirror_axes: Sequence[int] = (),
        member_batch: int = 16,
        seed: int = 0,
        fusion: Fusion = "mean",
        anchor_share: float = 0.0,
        noise_scale: float = 1.0,
        empty_up_to: float | Literal["lowest"] | None = "lowest",
        oversampling: int = 1,
        diversity_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if min(members, oversampling) < 1:
            rule = "members and oversampling must be at least 1"
            raise ValueError(f"{rule}. Got {members}, {oversampling}.")
        if not 0.0 <= diversity_weight <= 1.0:
            raise ValueError(f"diversity_weight must be in [0, 1]. Got {diversity_weight}.")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion must be one of {list(get_args(Fusion))}. Got {fusion!r}.")
        if not 0.0 < warm_start <= 1.0:
            raise ValueError(f"warm_start must be in (0, 1]. Got {warm_start}.")
        self.window, self.members, self.steps = tuple(window), members, steps
        self.oversampling, self.diversity_weight = oversampling, diversity_weight
        self.drawn = members * oversampling
        if not 0.0 <= anchor_share <= 1.0:
            raise ValueError(f"anchor_share must be in [0, 1]. Got {anchor_share}.")
        if noise_scale < 0.0:
            raise ValueError(f"noise_scale must be 0 or more. Got {noise_scale}.")
        if isinstance(empty_up_to, str | bool) and empty_up_to != LOWEST:
            rule = f"empty_up_to must be a number, 'lowest' or None. Got {empty_up_to!r}."
            raise ValueError(rule)
        self.anchor_share, self.noise_scale = anchor_share, noise_scale
        self.empty_up_to = empty_up_to
        self.sampler_name, self.sampler_options = sampler, dict(sampler_options or {})
        self.sampler = make_sampler(sampler, **self.sampler_options)
        self.warm_start, self.overlap = warm_start, overlap
        self.member_batch, self.seed, self.fusion = member_batch, seed, fusion
        axes = range(len(mirror_axes) + 1)
        self.mirrors = [c for n in axes for c in combinations(mirror_axes, n)]

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the masks of a network depend on, for the record of a case."""
        return {
            "seed": self.seed,
            "sampler": self.sampler_name,
            "sampler_options": self.sampler_options,
            "warm_start": self.warm_start,
            "steps": self.steps,
            "members": self.members,
            "fusion": self.fusion,
            "anchor_share": self.anchor_share,
            "noise_scale": self.noise_scale,
            "oversampling": self.oversampling,
            "diversity_weight": self.diversity_weight,
            "empty_up_to": self.empty_up_to,
        }

    def check(self, network: DiffusionSegmenter) -> None:
        """Refuse a network whose process has fewer time steps than ``steps``.

        Raises:
            UsageError: the process has too few time steps.
        """
        try:
            network.process.grid(self.steps, self.warm_start)
        except ValueError as error:
            remedy = "Choose fewer, or leave the option out"
            raise UsageError(f"steps {self.steps}", str(error).rstrip("."), remedy) from error

    def __call__(
        self, inputs: Tensor, network: DiffusionSegmenter, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Fused scores (B, K, *spatial) of a batch of images, as MONAI's engines ask for.

        The mean probability, unless ``fusion`` says otherwise.
        """
        ensembles = [self.ensemble(x, network, f"{i}") for i, x in enumerate(inputs)]
        fused = [fuse(self.fusion, e.mean, e.labels, e.by_steps) for e in ensembles]
        return torch.stack(fused).to(inputs.device)

    @torch.no_grad()
    def ensemble(
        self,
        image: Tensor,
        network: DiffusionSegmenter,
        case: str,
        storage: Storage | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ensemble:
        """Statistics of the ensemble of one image.

        Args:
            image: Image (C, *spatial). A 2D network takes a volume slice by slice along its last
                axis; a member has the same noise in all slices, so that they fit together.
            network: Network in evaluation mode, on the device to use.
            case: Name of the case; with the seed it fixes the noise.
            storage: Maker of the arrays of an image larger than the window; None: in memory.
            progress: Callback after each window, called with the number done and the total.

        Returns:
            Statistics on the image's grid, on the CPU.

        Raises:
            InputError: the disk has no room for the statistics of a large image.
        """
        storage = storage or Storage()
        size = tuple(image.shape[1:])
        flat = size[: len(self.window)]
        roi = tuple(min(w, s) for w, s in zip(self.window, flat, strict=True))
        places = places_of(flat, roi, self.overlap)
        slices = size[len(self.window) :]
        tally = WindowProgress(len(places) * (slices[0] if slices else 1), progress)
        background = self._background(image) if tally.total > 1 else None

        def of(plane: Tensor, storage: Storage) -> Ensemble:
            return self._windows(plane, network, case, places, background, storage, tally)

        if slices:
            planes = (of(image[..., z], Storage()) for z in range(*slices))
            found = stack_slices(planes, slices[0], storage)
        else:
            found = of(image, storage)
        labels = self._kept(found.labels, network.num_classes, bool(slices))
        return replace(found, labels=labels, seconds=tally.seconds, windows=tally.windows)

    def _kept(self, labels: Tensor, num_classes: int, by_slice: bool) -> Tensor:
        """Labels (N, *spatial) of the members that represent all samples (drawn, *spatial)."""
        if self.oversampling == 1:
            return labels
        parts = labels.unbind(-1) if by_slice else [labels]
        distances = torch.stack([jaccard_distances(part, num_classes) for part in parts])
        return labels[representatives(distances.mean(dim=0), self.members, self.diversity_weight)]

    def _background(self, image: Tensor) -> Tensor | None:
        """Largest value of background in each channel, (C,); None: no window is skipped."""
        if self.empty_up_to is None:
            return None
        if isinstance(self.empty_up_to, str):
            ranges = [torch.stack(channel.aminmax()) for channel in image]
            low, high = torch.stack(ranges, dim=1)
            return low + ROUNDING * (high - low)
        return torch.full((len(image),), float(self.empty_up_to))

    def _windows(
        self,
        image: Tensor,
        network: DiffusionSegmenter,
        case: str,
        places: Sequence[Place],
        background: Tensor | None,
        storage: Storage,
        tally: WindowProgress,
    ) -> Ensemble:
        size = tuple(image.shape[1:])
        roi = tuple(part.stop - part.start for part in places[0])
        device = next(network.parameters()).device
        blocks = blocks_of(network.state_size(size))

        def maps_of(place: Place) -> tuple[dict[str, Tensor], Tensor]:
            window = image[(slice(None), *place)]
            if background is not None and bool((window.flatten(1).amax(dim=1) <= background).all()):
                tally.count("skipped")
                return self._empty(network.num_classes, roi)
            window = window.contiguous().unsqueeze(0).to(device)
            found = self._window(window, network, case, place, blocks, tally.seconds)
            tally.count("run")
            return found

        if len(places) == 1:  # nothing to blend
            maps, labels = maps_of(places[0])
            maps = {name: x.cpu() for name, x in maps.items()}
            return Ensemble(labels=labels, seconds={}, windows={}, **maps)
        blend = Blend(size, roi, self.drawn, storage)
        for place in places:
            blend.add(place, *maps_of(place))
        maps, labels = blend.result()
        return Ensemble(labels=labels, seconds={}, windows={}, **maps)

    def _empty(self, num_classes: int, roi: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Maps and labels of a window that is background for sure."""
        zeros = torch.zeros(num_classes, *roi)
        certain = zeros.clone()
        certain[0] = 1.0
        maps = {"mean": certain, "variance": zeros, "anchor": certain}
        if self.fusion == "step_uncertainty":
            maps["by_steps"] = certain
        return maps, torch.zeros(self.drawn, *roi, dtype=torch.uint8)

    def _window(
        self,
        window: Tensor,
        network: DiffusionSegmenter,
        case: str,
        place: tuple[slice, ...],
        blocks: Sequence[int],
        seconds: dict[str, float],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Maps (K, *window) of a window, as ``Ensemble`` names them, and labels (drawn, *window).

        The time spent is added to ``seconds``.
        """
        moments, anchors = RunningMoments(), RunningMoments()
        by_steps = StepUncertainty() if self.fusion == "step_uncertainty" else None
        labels = torch.zeros(self.drawn, *window.shape[2:], dtype=torch.uint8)
        state = network.state_size(window.shape[2:])
        for variant, axes in enumerate(self.mirrors[: self.drawn]):
            mine = range(variant, self.drawn, len(self.mirrors))
            flipped = [2 + a for a in axes]
            started = time.perf_counter()
            condition = network.encode(window.flip(flipped) if axes else window)
            anchor = torch.softmax(condition.anchor.float(), dim=1)
            anchors.update(anchor.flip(flipped) if axes else anchor)
            encoded = time.perf_counter()
            seconds["encode"] += encoded - started
            watch = None if by_steps is None else _mirrored(by_steps, flipped)
            for start in range(0, len(mine), self.member_batch):
                batch = mine[start : start + self.member_batch]
                noise = MemberNoise(
                    self.seed,
                    case,
                    batch,
                    place,
                    state,
                    blocks,
                    network.stride,
                    axes,
                    self.noise_scale,
                )
                x_T = noise.start(network.num_classes).to(window.device)
                probability = network.sample(
                    condition,
                    x_T,
                    noise,
                    sampler=self.sampler,
                    steps=self.steps,
                    start=self.warm_start,
                    watch=watch,
                )
                probability = probability.flip(flipped) if axes else probability
                moments.update(probability)
                labels[list(batch)] = most_probable(probability).cpu()
            seconds["sample"] += time.perf_counter() - encoded
        mean = moments.mean.lerp(anchors.mean, self.anchor_share)
        maps = {"mean": mean, "variance": moments.variance, "anchor": anchors.mean}
        if by_steps is not None:
            maps["by_steps"] = by_steps.fused
        return maps, labels


def _mirrored(steps: StepUncertainty, flipped: list[int]) -> Callable[[int, Tensor], None]:
    """A callback that mirrors masks back before it adds them to ``steps``."""
    return lambda call, members: steps.add(call, members.flip(flipped))
