"""The content of ``models/calibration.json``, and the guarantees that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.calibration import conformal
from medsegdiff.calibration.conformal import THRESHOLDS
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.core.atomic_files import read_json
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import ScalingMethod
from medsegdiff.triage.triage import Triage


@dataclass(frozen=True)
class ClassGuarantee:
    """Thresholds of an inner and an outer mask of one class, and scores for its volume's interval.

    Attributes:
        inner: Threshold on the calibrated probability; None: the inner mask is empty.
        outer: Threshold, never above ``inner``; 0: the outer mask is the whole image.
        alpha: Bound on the expected loss, 1 - level.
        scores: Volume scores (n,) of the cases, ascending (``conformal.volume_interval``).
    """

    inner: float | None
    outer: float
    alpha: float
    scores: tuple[float, ...]

    def masks(self, probability: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Inner and outer mask, from the calibrated probability of the class, any shape."""
        p = probability.astype(np.float64)  # as risk_curves compares
        return p >= (np.inf if self.inner is None else self.inner), p >= self.outer

    @property
    def vacuous(self) -> tuple[str, ...]:
        """The statements that say nothing at this level: of ``outer``, ``inner``, ``volume``."""
        says_nothing = {
            "outer": self.outer < THRESHOLDS[0],
            "inner": self.inner is None,
            "volume": conformal.volume_interval(np.asarray(self.scores), self.alpha, 0.0, 1.0)[1]
            is None,
        }
        return tuple(name for name, nothing in says_nothing.items() if nothing)

    def volume(
        self, probability: NDArray[Any], weight: NDArray[np.float64] | None = None
    ) -> tuple[float, float | None]:
        """Interval of the volume in voxels; None: no upper limit."""
        expected, doubt = conformal.expected_volume(probability, weight)
        return conformal.volume_interval(np.asarray(self.scores), self.alpha, expected, doubt)


@dataclass(frozen=True)
class Calibration:
    """A scaling, and the curves and scores for conformal guarantees at any level.

    Attributes:
        method: Method of the scaling.
        scaling: Scaling of the mean probability.
        n: Number of cases of the fit.
        missed: Mean share (L,) of the reference outside {p >= threshold}, by class.
        wrong: Mean share (L,) of {p >= threshold} outside the reference, by class.
        volume_scores: Volume scores (n,) of the cases, ascending, by class.
        fitted_on: Record of data, cases, patients, inputs, bundle, weights and settings.
        checked: Figures on cases that were left out of a fit, and why the method was chosen.
        largest_shift: Largest shift of a case's foreground by the scaling, see ``fit.shift``.
        triage: Fits to tell something of a case whose reference nobody knows; None: the cases had
            no features.
    """

    method: ScalingMethod
    scaling: Scaling
    n: int
    missed: dict[str, tuple[float, ...]]
    wrong: dict[str, tuple[float, ...]]
    volume_scores: dict[str, tuple[float, ...]]
    fitted_on: dict[str, Any] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)
    largest_shift: float = 0.0
    triage: Triage | None = None

    def guarantee(self, level: float) -> dict[str, ClassGuarantee]:
        """The guarantee of each class at a level in (0, 1).

        The outer threshold is lowered where the outer mask would not contain the inner one. That
        only lowers the missed share, so both guarantees still hold.
        """
        alpha, found = round(1.0 - level, 12), {}
        for slug in self.missed:
            inner = conformal.inner_threshold(np.asarray(self.wrong[slug]), self.n, alpha)
            outer = conformal.outer_threshold(np.asarray(self.missed[slug]), self.n, alpha)
            outer = outer if inner is None else min(outer, inner)
            found[slug] = ClassGuarantee(inner, outer, alpha, self.volume_scores[slug])
        return found

    def limits(self, level: float) -> list[str]:
        """Sentences on what cannot be guaranteed at a level in (0, 1); empty if all can."""
        words = {
            "outer": "no outer mask of {} but the whole image",
            "inner": "no inner mask of {} but an empty one",
            "volume": "no upper limit of the volume of {}",
        }
        return [
            f"at level {level:g} the {self.n} cases of the calibration allow "
            + words[name].format(slug)
            for slug, one in self.guarantee(level).items()
            for name in one.vacuous
        ]

    def to_json(self) -> dict[str, Any]:
        """The calibration as dictionaries and lists."""
        return {
            "method": self.method,
            "temperature": list(self.scaling.temperature),
            "bias": list(self.scaling.bias),
            "n": self.n,
            "thresholds": THRESHOLDS.tolist(),
            "missed": {slug: list(values) for slug, values in self.missed.items()},
            "wrong": {slug: list(values) for slug, values in self.wrong.items()},
            "volume_scores": {slug: list(values) for slug, values in self.volume_scores.items()},
            "largest_shift": self.largest_shift,
            "fitted_on": self.fitted_on,
            "checked": self.checked,
            "triage": self.triage.to_json() if self.triage else None,
        }


def read_calibration(path: Path, labels: dict[int, str]) -> Calibration:
    """The calibration in a file.

    Args:
        path: Path of the file.
        labels: Names in files by class number, background included; the calibration must have them.

    Raises:
        InputError: the file is unreadable, or has other classes.
    """
    remedy = "Remove it, or run medsegdiff calibrate again"
    content = read_json(path)
    try:
        scaling = Scaling(tuple(content["temperature"]), tuple(content["bias"]))
        curves: dict[str, dict[str, tuple[float, ...]]] = {
            key: {slug: tuple(map(float, v)) for slug, v in content[key].items()}
            for key in ("missed", "wrong", "volume_scores")
        }
        same_grid = np.allclose(content["thresholds"], THRESHOLDS)
        found = Calibration(
            content["method"],
            scaling,
            int(content["n"]),
            **curves,
            fitted_on=dict(content["fitted_on"]),
            checked=dict(content["checked"]),
            largest_shift=float(content["largest_shift"]),
            triage=Triage.from_json(content["triage"]) if content.get("triage") else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, "cannot be read as a calibration", remedy) from error
    foreground = [name for value, name in labels.items() if value]
    known = [list(by_class) for by_class in curves.values()]
    fits = len(scaling.temperature) == len(scaling.bias) == len(labels)
    if not (same_grid and fits and known == [foreground] * 3):
        raise InputError(path, f"is not of the classes {', '.join(foreground)}", remedy)
    return found
