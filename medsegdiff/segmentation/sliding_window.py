"""The ensemble of one image, window by window, all members of a window as one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.core.sampling_settings import SamplingSettings
from medsegdiff.core.storage import Storage
from medsegdiff.core.types import Fusion
from medsegdiff.diffusion.samplers import make_sampler
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.models.fold_ensemble import FoldEnsemble, networks_of
from medsegdiff.segmentation.blend import Blend, Place, places_of
from medsegdiff.segmentation.ensemble import (
    Ensemble,
    RunningMoments,
    WindowProgress,
    most_probable,
    stack_slices,
)
from medsegdiff.segmentation.fusion import StepUncertainty, fuse
from medsegdiff.segmentation.noise import JoinedNoise, MemberNoise, blocks_of
from medsegdiff.segmentation.representative_members import jaccard_distances, representatives

Network = DiffusionSegmenter | FoldEnsemble
"""A network, or those of several folds."""

ROUNDING = 1e-6
"""Share of an image's range by which its background may vary."""

SMALL = 2**15
"""Voxels of a window up to which its mirror images are computed together."""


class EnsembleInferer(Inferer):
    """Samples several masks of an image and keeps their statistics.

    An image larger than the window is cut into overlapping windows; each is encoded once, its
    members are sampled together, and the statistics are blended with Gaussian weights. Overlapping
    windows share each member's noise where they overlap; a member's label map is taken, voxel by
    voxel, from the window whose centre is nearest, and may still show a seam.

    Args:
        window: Largest size of a window, one value for each spatial axis of the network, in voxels.
        overlap: Overlap of neighbouring windows, as a fraction in [0, 1).
        mirror_axes: Spatial axes along which anatomy may be mirrored. The members are shared out
            over all mirror images, each encoded once, and mirrored back; the anchor is the mean
            of theirs. With the networks of several folds, member m is of network m modulo their
            number, and the anchor is the mean over the networks, too.
        member_batch: Number of members sampled at once; it bounds the memory and changes no result.
        sampling: Settings of :class:`~medsegdiff.core.sampling_settings.SamplingSettings`, such as
            ``members=16``: all else that the masks depend on.

    Raises:
        ValueError: a setting is out of its range, or a name is unknown.
    """

    def __init__(
        self,
        window: Sequence[int],
        *,
        overlap: float = 0.25,
        mirror_axes: Sequence[int] = (),
        member_batch: int = 16,
        **sampling: Any,
    ) -> None:
        super().__init__()
        self.sampling = SamplingSettings(**sampling)
        self.sampler = make_sampler(self.sampling.sampler, **(self.sampling.sampler_options or {}))
        self.window, self.overlap, self.member_batch = tuple(window), overlap, member_batch
        axes = range(len(mirror_axes) + 1)
        self.mirrors = [c for n in axes for c in combinations(mirror_axes, n)]

    @property
    def fusion(self) -> Fusion:
        """How the members become one mask."""
        return self.sampling.fusion

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the masks of a network depend on, for the record of a case."""
        return self.sampling.to_record()

    def check(self, network: Network) -> None:
        """Refuse a network whose process has fewer time steps than ``steps``.

        Raises:
            UsageError: the process has too few time steps.
        """
        try:
            network.process.grid(self.sampling.steps, self.sampling.warm_start)
        except ValueError as error:
            remedy = "Choose fewer, or leave the option out"
            raise UsageError(
                f"steps {self.sampling.steps}", str(error).rstrip("."), remedy
            ) from error

    def __call__(self, inputs: Tensor, network: Network, *args: Any, **kwargs: Any) -> Tensor:
        """Fused scores (B, K, *spatial) of a batch of images, as MONAI's engines ask for.

        The mean probability, unless ``fusion`` says otherwise.
        """
        return self.fused(self.ensembles(inputs, network)).to(inputs.device)

    def ensembles(self, inputs: Tensor, network: Network) -> list[Ensemble]:
        """Statistics of the ensemble of each of a batch of images (B, C, *spatial)."""
        return [self.ensemble(x, network, f"{i}") for i, x in enumerate(inputs)]

    def fused(self, ensembles: Sequence[Ensemble]) -> Tensor:
        """Scores (B, K, *spatial) of the ensembles of images of one size, on the CPU."""
        return torch.stack([fuse(self.fusion, e.mean, e.labels, e.by_steps) for e in ensembles])

    @torch.no_grad()
    def ensemble(
        self,
        image: Tensor,
        network: Network,
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
        settings = self.sampling
        if settings.oversampling == 1:
            return labels
        parts = labels.unbind(-1) if by_slice else [labels]
        distances = torch.stack([jaccard_distances(part, num_classes) for part in parts])
        mean, weight = distances.mean(dim=0), settings.diversity_weight
        return labels[representatives(mean, settings.members, weight)]

    def _background(self, image: Tensor) -> Tensor | None:
        """Largest value of background in each channel, (C,); None: no window is skipped."""
        limit = self.sampling.empty_up_to
        if limit is None:
            return None
        if isinstance(limit, str):
            ranges = [torch.stack(channel.aminmax()) for channel in image]
            low, high = torch.stack(ranges, dim=1)
            return low + ROUNDING * (high - low)
        return torch.full((len(image),), float(limit))

    def _windows(
        self,
        image: Tensor,
        network: Network,
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
        blend = Blend(size, roi, self.sampling.drawn, storage)
        for place in places:
            blend.add(place, *maps_of(place))
        maps, labels = blend.result()
        return Ensemble(labels=labels, seconds={}, windows={}, **maps)

    def _together(self, passes: Sequence[Any], window: Tensor) -> list[list[int]]:
        """Numbers of the passes of one network that are computed as one batch.

        All mirror images of a small window, where each operation costs more than its arithmetic.
        """
        networks = [id(single) for _, single in passes]
        each, rest = divmod(self.sampling.drawn, len(passes))
        small = window[0, 0].numel() <= SMALL
        if rest or not small or self.fusion == "step_uncertainty":
            return [[number] for number in range(len(passes))]
        found = [
            [n for n, one in enumerate(networks) if one == of] for of in dict.fromkeys(networks)
        ]
        if each * len(found[0]) > self.member_batch:
            return [[number] for number in range(len(passes))]
        return found

    def _empty(self, num_classes: int, roi: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Maps and labels of a window that is background for sure."""
        zeros = torch.zeros(num_classes, *roi)
        certain = zeros.clone()
        certain[0] = 1.0
        maps = {"mean": certain, "variance": zeros, "anchor": certain}
        if self.fusion == "step_uncertainty":
            maps["by_steps"] = certain
        return maps, torch.zeros(self.sampling.drawn, *roi, dtype=torch.uint8)

    def _window(
        self,
        window: Tensor,
        network: Network,
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
        settings, drawn = self.sampling, self.sampling.drawn
        labels = torch.zeros(drawn, *window.shape[2:], dtype=torch.uint8)
        state = network.state_size(window.shape[2:])
        passes = [(axes, single) for axes in self.mirrors for single in networks_of(network)]

        def noise_of(members: Sequence[int], mirrored: Sequence[int]) -> MemberNoise:
            return MemberNoise(
                settings.seed,
                case,
                members,
                place,
                state,
                blocks,
                network.stride,
                mirrored,
                settings.noise_scale,
                settings.member_noise or (),
            )

        for numbers in self._together(passes[:drawn], window):
            single, axes = passes[numbers[0]][1], [passes[n][0] for n in numbers]
            started = time.perf_counter()
            condition = single.encode(torch.cat([_mirrored(window, one) for one in axes]))
            anchor = torch.softmax(condition.anchor.float(), dim=1)
            for one, mirrored in zip(anchor.split(1), axes, strict=True):
                anchors.update(_mirrored(one, mirrored))
            encoded = time.perf_counter()
            seconds["encode"] += encoded - started
            watch = None if by_steps is None else _watching(by_steps, axes[0])
            members = [range(n, drawn, len(passes)) for n in numbers]
            for start in range(0, len(members[0]), self.member_batch):
                batches = [mine[start : start + self.member_batch] for mine in members]
                noise = JoinedNoise([noise_of(*one) for one in zip(batches, axes, strict=True)])
                probability = single.sample(
                    condition,
                    noise.start(network.num_classes).to(window.device),
                    noise,
                    sampler=self.sampler,
                    steps=settings.steps,
                    start=settings.warm_start,
                    watch=watch,
                )
                parts = probability.split(len(batches[0]))
                for part, batch, mirrored in zip(parts, batches, axes, strict=True):
                    part = _mirrored(part, mirrored)
                    moments.update(part)
                    labels[list(batch)] = most_probable(part).cpu()
            seconds["sample"] += time.perf_counter() - encoded
        mean = moments.mean.lerp(anchors.mean, settings.anchor_share)
        maps = {"mean": mean, "variance": moments.variance, "anchor": anchors.mean}
        if by_steps is not None:
            maps["by_steps"] = by_steps.fused
        return maps, labels


def _mirrored(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Maps (B, C, *spatial) mirrored along spatial axes."""
    return x.flip([2 + axis for axis in axes]) if axes else x


def _watching(steps: StepUncertainty, axes: Sequence[int]) -> Callable[[int, Tensor], None]:
    """A callback that mirrors masks back before it adds them to ``steps``."""
    return lambda call, members: steps.add(call, _mirrored(members, axes))
