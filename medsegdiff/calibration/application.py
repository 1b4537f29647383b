"""What a bundle's calibration means for cases that are segmented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from medsegdiff.bundle.bundle import CALIBRATION, Bundle
from medsegdiff.calibration.fitted import Calibration, ClassGuarantee, read_calibration
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.sampling_settings import BINDING
from medsegdiff.core.types import CalibrationUse
from medsegdiff.data.manifest import class_slug


def read_bundle_calibration(bundle: Bundle) -> Calibration | None:
    """What ``medsegdiff calibrate`` has fitted to a bundle; None if there is nothing.

    Raises:
        InputError: it is unreadable, or was fitted to other weights or classes.
    """
    path = bundle.root / CALIBRATION
    if not path.is_file():
        return None
    names = {value: class_slug(name) for value, name in bundle.labels.items()}
    found = read_calibration(path, names)
    if found.fitted_on.get("weights_hash") != bundle.weights_hash():
        remedy = "Remove it, or run medsegdiff calibrate on masks of these weights"
        raise InputError(path, "was fitted to other weights than the bundle has", remedy)
    return found


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
    calibration = read_bundle_calibration(bundle) if use == "auto" else None
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
        for name in BINDING
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
    mean: NDArray[np.float32],
    voxel_ml: float,
    labels: Mapping[int, str],
    guarantee: Mapping[str, ClassGuarantee],
    level: float,
) -> dict[str, Any]:
    """What ``<case>_run.json`` says of a guarantee: its level; thresholds and volumes by class."""
    classes = {}
    for value, label in labels.items():
        if value:
            one = guarantee[class_slug(label)]
            low, high = one.volume(mean[value])
            classes[class_slug(label)] = {
                "inner_threshold": one.inner,
                "outer_threshold": one.outer,
                "volume_ml": [low * voxel_ml, None if high is None else high * voxel_ml],
            }
    return {"level": level, "classes": classes}
