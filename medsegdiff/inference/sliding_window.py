"""The ensemble of one image, window by window, all members of a window as one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, get_args

import torch
from monai.data.utils import compute_importance_map
from monai.inferers import Inferer, sliding_window_inference
from torch import Tensor

from medsegdiff.diffusion.samplers import make_sampler
from medsegdiff.inference.ensemble import (
    Ensemble,
    RunningMoments,
    most_probable,
    stack_slices,
)
from medsegdiff.inference.fusion import StepUncertainty, fuse
from medsegdiff.inference.noise import MemberNoise, blocks_of
from medsegdiff.model import DiffusionSegmenter
from medsegdiff.types import Fusion


class EnsembleInferer(Inferer):
    """Samples ``members`` masks of an image and keeps their statistics.

    An image larger than the window is cut into overlapping windows; each is encoded once, its
    members are sampled together, and the statistics are blended with Gaussian weights. Overlapping
    windows share each member's noise where they overlap; a member's label map is taken, voxel by
    voxel, from the window whose centre is nearest, and may still show a seam.

    Args:
        window: largest size seen at once, one value a spatial axis of the network.
        members: N.
        steps: of the time grid; denoiser evaluations a member (``heun``: 2 ``steps`` - 1).
        sampler: name in ``diffusion.samplers``.
        sampler_options: its further arguments, such as ``{"eta": 1.0}``.
        warm_start: fraction of the time steps to begin at, in (0, 1]. Below 1, members begin with
            the anchor's mask, noised to there.
        overlap: of neighbouring windows, as a fraction in [0, 1).
        mirror_axes: spatial axes along which anatomy may be mirrored. The members are shared out
            over all mirror images, each encoded once, and mirrored back; the anchor is the mean
            of theirs.
        member_batch: members sampled at once; bounds the memory and changes no result.
        seed: of the run.
        fusion: how the members become one mask; see ``inference.fusion``.
        anchor_share: of the anchor in the mean probability, in [0, 1]. The anchor estimates the
            same mean as the members do, without the noise of drawing a few. The variance is that
            of the members alone.
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
    ) -> None:
        super().__init__()
        if members < 1:
            raise ValueError(f"members must be at least 1. Got {members}.")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion must be one of {list(get_args(Fusion))}. Got {fusion!r}.")
        if not 0.0 < warm_start <= 1.0:
            raise ValueError(f"warm_start must be in (0, 1]. Got {warm_start}.")
        self.window, self.members, self.steps = tuple(window), members, steps
        if not 0.0 <= anchor_share <= 1.0:
            raise ValueError(f"anchor_share must be in [0, 1]. Got {anchor_share}.")
        if noise_scale < 0.0:
            raise ValueError(f"noise_scale must be 0 or more. Got {noise_scale}.")
        self.anchor_share, self.noise_scale = anchor_share, noise_scale
        self.sampler_name, self.sampler_options = sampler, dict(sampler_options or {})
        self.sampler = make_sampler(sampler, **self.sampler_options)
        self.warm_start, self.overlap = warm_start, overlap
        self.member_batch, self.seed, self.fusion = member_batch, seed, fusion
        axes = range(len(mirror_axes) + 1)
        self.mirrors = [c for n in axes for c in combinations(mirror_axes, n)]

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
    def ensemble(self, image: Tensor, network: DiffusionSegmenter, case: str) -> Ensemble:
        """Statistics of the ensemble of one image.

        Args:
            image: (C, *spatial). A 2D network takes a volume slice by slice along its last axis;
                a member has the same noise in all of them, so that it stays one reading.
            network: in evaluation mode, on the device that shall do the work.
            case: name of the case; with the seed it fixes the noise.

        Returns:
            Statistics on the image's grid, on the CPU.
        """
        if image.ndim - 1 == len(self.window):
            return self._windows(image, network, case)
        slices = [self._windows(image[..., z], network, case) for z in range(image.shape[-1])]
        return stack_slices(slices)

    def _windows(self, image: Tensor, network: DiffusionSegmenter, case: str) -> Ensemble:
        size = tuple(image.shape[1:])
        roi = tuple(min(w, s) for w, s in zip(self.window, size, strict=True))
        device = next(network.parameters()).device
        blocks = blocks_of(network.state_size(size))
        seconds = {"encode": 0.0, "sample": 0.0}
        if roi == size:  # one window: nothing to blend
            whole = torch.as_tensor(image).unsqueeze(0).to(device)
            everywhere = tuple(slice(0, s) for s in size)
            maps, labels = self._window(whole, network, case, everywhere, blocks, seconds)
            maps = {name: x.cpu() for name, x in maps.items()}
            return Ensemble(labels=labels, seconds=seconds, **maps)
        labels = torch.zeros(self.members, *size, dtype=torch.uint8)
        best = torch.zeros(size)  # importance of the window that a voxel's labels came from
        importance = compute_importance_map(roi, mode="gaussian", dtype=torch.float32)

        def predict(window: Tensor, place: Sequence[Sequence[slice]]) -> dict[str, Tensor]:
            where = tuple(place[0][2:])
            statistics, window_labels = self._window(window, network, case, where, blocks, seconds)
            better = importance > best[where]
            best[where] = torch.where(better, importance, best[where])
            labels[(slice(None), *where)] = torch.where(
                better, window_labels, labels[(slice(None), *where)]
            )
            return {name: x.unsqueeze(0) for name, x in statistics.items()}

        blended = sliding_window_inference(
            torch.as_tensor(image).unsqueeze(0),
            roi,
            1,
            predict,
            overlap=self.overlap,
            mode="gaussian",
            sw_device=device,
            device="cpu",
            with_coord=True,
        )
        maps = {name: torch.as_tensor(x[0]) for name, x in blended.items()}
        return Ensemble(labels=labels, seconds=seconds, **maps)

    def _window(
        self,
        window: Tensor,
        network: DiffusionSegmenter,
        case: str,
        place: tuple[slice, ...],
        blocks: Sequence[int],
        seconds: dict[str, float],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Maps (K, *window) of one window, as ``Ensemble`` names them, and labels (N, *window).

        The time spent is added to ``seconds``.
        """
        moments, anchors = RunningMoments(), RunningMoments()
        by_steps = StepUncertainty() if self.fusion == "step_uncertainty" else None
        labels = torch.zeros(self.members, *window.shape[2:], dtype=torch.uint8)
        state = network.state_size(window.shape[2:])
        for variant, axes in enumerate(self.mirrors[: self.members]):
            mine = range(variant, self.members, len(self.mirrors))
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
    """Takes in masks that are mirrored along some axes."""
    return lambda call, members: steps.add(call, members.flip(flipped))
