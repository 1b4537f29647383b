"""What a bundle's calibration means for cases that are segmented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from medsegdiff.bundle import Bundle
from medsegdiff.data.manifest import class_slug
from medsegdiff.inference.segment import SegmentedCase
from medsegdiff.recalibration.record import Calibration, ClassGuarantee
from medsegdiff.types import CalibrationUse, UsageError

FITTED_WITH = (
    *("members", "steps", "sampler", "sampler_options", "warm_start"),
    *("anchor_share", "noise_scale", "oversampling", "repulsion"),
)
"""Settings that a calibration is of."""


def chosen_calibration(
    bundle: Bundle, use: CalibrationUse, level: float | None
) -> Calibration | None:
    """The bundle's calibration, if it shall be applied and is there.

    Args:
        bundle: that may have one.
        use: ``auto`` or ``off``.
        level: of the guarantee that is wanted, or None.

    Raises:
        UsageError: another word, a level outside of (0, 1), or no calibration to serve it from.
        InputError: the calibration is unreadable, or of other weights or classes.
    """
    if use not in get_args(CalibrationUse):
        raise UsageError(
            "calibration", f"must be auto or 'off', not {use!r}", "Quote 'off' in YAML"
        )
    if level is not None and not 0.0 < level < 1.0:
        rule = f"must lie between 0 and 1, not be {level}"
        raise UsageError("guarantee", rule, "Give for instance 0.95")
    calibration = bundle.calibration() if use == "auto" else None
    if level is not None and calibration is None:
        rule = "has no models/calibration.json" if use == "auto" else "is used without calibration"
        remedy = "Run medsegdiff calibrate first" if use == "auto" else "Let calibration be auto"
        raise UsageError("guarantee", f"the bundle {bundle.name} {rule}", remedy)
    return calibration


def calibration_warnings(
    calibration: Calibration, settings: Mapping[str, Any], level: float | None
) -> list[str]:
    """In words: sampled otherwise than the calibration's cases; what the level does not allow."""
    fitted = calibration.fitted_on.get("settings", {})
    told = [
        f"the calibration was fitted with {name} {fitted[name]}, not {settings[name]}: "
        "it need not hold"
        for name in FITTED_WITH
        if name in fitted and fitted[name] != settings[name]
    ]
    return told + (calibration.limits(level) if level is not None else [])


def calibration_record(calibration: Calibration, input_hash: str) -> dict[str, Any]:
    """What ``<case>_run.json`` says of the calibration.

    ``includes_this_case``: whether it was fitted on this very image.
    """
    fitted = calibration.fitted_on
    return {
        "method": calibration.method,
        "temperature": list(calibration.scaling.temperature),
        "bias": list(calibration.scaling.bias),
        **{name: fitted.get(name) for name in ("data", "cases", "patients")},
        "includes_this_case": input_id(input_hash) in fitted.get("inputs", ()),
    }


def input_id(input_hash: str) -> str:
    """By what a calibration knows an image that it was fitted on: the beginning of its hash."""
    return input_hash[:16]


def guarantee_record(
    case: SegmentedCase,
    labels: Mapping[int, str],
    guarantee: Mapping[str, ClassGuarantee],
    level: float,
) -> dict[str, Any]:
    """What ``<case>_run.json`` says of a guarantee: its level; thresholds and volumes by class."""
    voxel, classes = case.geometry.voxel_ml, {}
    for value, label in labels.items():
        if value:
            one = guarantee[class_slug(label)]
            low, high = one.volume(case.mean[value])
            classes[class_slug(label)] = {
                "inner_threshold": one.inner,
                "outer_threshold": one.outer,
                "volume_ml": [low * voxel, None if high is None else high * voxel],
            }
    return {"level": level, "classes": classes}
