"""Settings that an ensemble's masks depend on, each described once.

The run record, the check of a calibration, the overview and the report read their keys from here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from medsegdiff.core.types import Fusion

LOWEST: str = "lowest"


_BINDS = {"binds": True}
_SHOWN = {"shown": True}


@dataclass(frozen=True)
class SamplingSettings:
    """Settings that the masks which a network draws of an image depend on.

    Attributes:
        seed: Seed of the run.
        sampler: Name of a sampler in ``diffusion.samplers``.
        sampler_options: Further arguments of the sampler, such as ``{"eta": 1.0}``.
        warm_start: Fraction of the time steps to begin at, in (0, 1]. Below 1, members begin with
            the anchor's mask, noised to that step.
        steps: Number of steps of the time grid, which is the number of denoiser evaluations for
            each member (``heun``: 2 ``steps`` - 1).
        members: Number N of members.
        fusion: Rule that makes one mask of the members; see ``segmentation.fusion``.
        anchor_share: Share of the anchor in the mean probability, in [0, 1]. The anchor estimates
            the same mean as the members do, without the noise of a few samples. The variance is
            that of the members alone.
        noise_scale: Standard deviation of the members' noise.
        oversampling: Number of samples drawn for each member that is kept. Above 1 the N members
            that represent all best are kept (``segmentation.representative_members``); mean and
            variance are over all samples. Members are chosen for an image as a whole; for a volume
            taken slice by slice, by the mean distance over the slices.
        diversity_weight: Weight in [0, 1] of the members' diversity when they are chosen; 1: as
            diverse as all samples. It has no effect without oversampling.
        member_noise: Numbers of the noise that the first members take, the same in every image and
            for every seed; None: all noise is an image's own. Numbers that were chosen to represent
            what a network draws, the most typical first, make a small set as good as one that is
            chosen from many draws of each image. Only those of the mirror image (and fold) that a
            member is drawn from represent it, so they hold for one ``mirror_axes``.
        empty_up_to: Largest value of background; a window without any greater value is background
            for sure and is not run. A number in the image's scale; ``lowest``: the image's lowest
            value, which padding, masking or clipping leave around a body; None: all windows are
            run. An image of one window is always run.

    Raises:
        ValueError: a value out of its range.
    """

    seed: int = field(default=0, metadata=_SHOWN)
    sampler: str = field(default="ddim", metadata=_BINDS | _SHOWN)
    sampler_options: dict[str, float] | None = field(default=None, metadata=_BINDS)
    warm_start: float = field(default=1.0, metadata=_BINDS)
    steps: int = field(default=4, metadata=_BINDS | _SHOWN)
    members: int = field(default=16, metadata=_BINDS | _SHOWN)
    fusion: Fusion = field(default="mean", metadata=_SHOWN)
    anchor_share: float = field(default=0.0, metadata=_BINDS)
    noise_scale: float = field(default=1.0, metadata=_BINDS)
    oversampling: int = field(default=1, metadata=_BINDS)
    diversity_weight: float = field(default=1.0, metadata=_BINDS)
    member_noise: list[int] | None = field(default=None, metadata=_BINDS)
    empty_up_to: float | Literal["lowest"] | None = "lowest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampler_options", dict(self.sampler_options or {}))
        if min(self.members, self.oversampling) < 1:
            rule = "members and oversampling must be at least 1"
            raise ValueError(f"{rule}. Got {self.members}, {self.oversampling}.")
        if self.member_noise is not None:
            object.__setattr__(self, "member_noise", list(self.member_noise))
            if len(set(self.member_noise)) < len(self.member_noise):
                rule = "member_noise must name each noise once"
                raise ValueError(f"{rule}. Got {self.member_noise}.")
        for name in ("diversity_weight", "anchor_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1]. Got {getattr(self, name)}.")
        if self.fusion not in get_args(Fusion):
            rule = f"fusion must be one of {list(get_args(Fusion))}"
            raise ValueError(f"{rule}. Got {self.fusion!r}.")
        if not 0.0 < self.warm_start <= 1.0:
            raise ValueError(f"warm_start must be in (0, 1]. Got {self.warm_start}.")
        if self.noise_scale < 0.0:
            raise ValueError(f"noise_scale must be 0 or more. Got {self.noise_scale}.")
        if isinstance(self.empty_up_to, str | bool) and self.empty_up_to != LOWEST:
            rule = "empty_up_to must be a number, 'lowest' or None"
            raise ValueError(f"{rule}. Got {self.empty_up_to!r}.")

    @property
    def drawn(self) -> int:
        """How many members are drawn, of which ``members`` are kept."""
        return self.members * self.oversampling

    def to_record(self) -> dict[str, Any]:
        """The settings as ``<case>_run.json`` tells them."""
        return asdict(self)


def _named(mark: str) -> tuple[str, ...]:
    return tuple(one.name for one in fields(SamplingSettings) if one.metadata.get(mark))


BINDING = _named("binds")
"""Settings that a calibration is bound to: fitted with others, it need not hold."""

SHOWN = ("bundle", *_named("shown"))
"""Keys of a run's record that pages and reports name."""
