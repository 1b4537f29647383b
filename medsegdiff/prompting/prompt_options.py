"""Options of finding words in pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from medsegdiff.core.errors import UsageError

Evidence = Literal["attention", "difference", "both"]


@dataclass(frozen=True)
class PromptOptions:
    """Options of finding words.

    Args:
        template: Text around the names, with ``{}`` in their place.
        evidence: ``attention``; ``difference`` between predictions with and without a word; or
            ``both``, their product.
        levels: Levels of noise, as shares of the forward process.
        draws: Number of draws of noise at each level.
        layers: Part of the names of the cross-attention layers to use, or several with commas;
            empty for all layers.
        coarsest: Number of places along the longer side of the coarsest attention to use.
        propagation: Number of times that maps are spread along self-attention.
        background: Share of a map's range that a place must reach to be a word.
        inverse_temperature: Sharpness of the competition between words.
        radius: Radius of guided filtering, in pixels of the model's image; 0 for none.
        crf: Weight of a conditional random field, which makes similar neighbouring pixels agree; 0
            for none.
        attended: Least attention to a word at its strongest places, in (0, 1], for the word to be
            present; 0 for no such test.
        absolute: Whether the attention to all tokens of a name is taken as its probability, for
            models whose attention was taught to be one; else each map is scaled to its own range.
            Then ``background`` is the attention at which a word is as probable as none,
            ``attended`` is compared with the probability at the strongest pixels, and
            ``evidence``, ``presence`` and ``inverse_temperature`` are not used.
        windows: Sides in pixels of overlapping windows that a picture is cut into, each as large as
            the model sees; 0 is the whole picture; several are averaged. Empty: the whole picture.
            For absolute maps only.
        presence: Standard errors by which a word must lower the denoising error to be present;
            negative for no such test.
        seed: Seed of the noise.
    """

    template: str = "{}"
    evidence: Evidence = "attention"
    levels: tuple[float, ...] = (0.1, 0.2, 0.3)
    draws: int = 8
    layers: str = ""
    coarsest: int = 16
    propagation: int = 1
    background: float = 0.4
    inverse_temperature: float = 10.0
    radius: int = 2
    crf: float = 0.0
    attended: float = 0.0
    absolute: bool = False
    windows: tuple[int, ...] = ()
    presence: float = 2.0
    seed: int = 0

    @property
    def tells_presence(self) -> bool:
        """Whether the options test the presence of words."""
        return self.attended > 0.0 or self.presence >= 0.0

    def __post_init__(self) -> None:
        if self.evidence not in get_args(Evidence):
            rule = f"must be attention, difference or both, not {self.evidence!r}"
            raise UsageError("evidence", rule, "Choose one of them")
        if not self.levels or not all(0.0 < level < 1.0 for level in self.levels):
            raise UsageError(
                "levels", "must be shares between 0 and 1", "Give for instance 0.1,0.3"
            )
        if not 0.0 <= self.attended <= 1.0:
            raise UsageError(
                "attended", f"must be from 0 to 1, not {self.attended}", "Give for instance 0.2"
            )
        if self.crf < 0.0:
            raise UsageError("crf", f"must be 0 or more, not {self.crf}", "Give for instance 8")
        if self.windows and (not self.absolute or min(self.windows) < 0):
            rule = f"must be 0 or more, and of absolute maps, not {self.windows}"
            raise UsageError("windows", rule, "Give for instance 96, and absolute")
        if self.draws < 1:
            raise UsageError("draws", f"must be 1 or more, not {self.draws}", "Give for instance 8")
