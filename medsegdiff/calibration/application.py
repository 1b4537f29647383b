"""Apply a bundle's calibration to cases that are segmented."""

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
    """The calibration that ``medsegdiff calibrate`` fitted to a bundle; None if there is none.

    Raises:
        InputError: the file is unreadable, or was fitted to other weights or classes.
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
    """The bundle's calibration if it exists and is to be applied, otherwise None.

    Args:
        bundle: Bundle, with or without a calibration.
        use: Use of the calibration, ``auto`` or ``off``.
        level: Level of the guarantee that is wanted, in (0, 1); None: no guarantee.

    Raises:
        UsageError: ``use`` is another word, the level is outside (0, 1), or a guarantee is wanted
            without a calibration.
        InputError: the calibration is unreadable, or was fitted to other weights or classes.
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
    """Sentences that warn where the calibration does not hold or is too small for the level.

    Args:
        calibration: Calibration that is applied.
        settings: Settings of the case, which should be those of the calibration's cases; ``model``
            names the single network of another program, where one made it.
        level: Level of the guarantee in (0, 1), or None.
    """
    fitted = calibration.fitted_on.get("settings", {})
    changed = [
        f"the calibration was fitted with {name} {fitted[name]}, not {settings[name]}: "
        "it need not hold"
        for name in BINDING
        if name in fitted and fitted[name] != settings[name]
    ]
    if level is None:
        return changed
    singles = len(calibration.fitted_on.get("single_networks", ()))
    single_network = (settings.get("model") or {}).get("network")
    if singles and single_network is None:
        changed.append(
            f"the guarantee was fitted to masks of {singles} single networks: that it holds for "
            "their ensemble, or for one network trained on all cases, is an assumption"
        )
    return changed + calibration.limits(level)


FAR = 1.5
"""Shift of a case by the scaling, relative to the largest of the fit, from which it is told."""

FAR_AT_LEAST = 0.05
"""Smaller shifts are never told."""


def shift_warnings(calibration: Calibration, shift: float) -> list[str]:
    """In words: the scaling moves this case further than any that it was fitted on.

    Args:
        calibration: Calibration that was applied.
        shift: Shift of the case, see ``fit.shift``.
    """
    if shift <= max(FAR * calibration.largest_shift, FAR_AT_LEAST):
        return []
    return [
        f"the calibration moves {100 * shift:.0f} % of the foreground of this case, more than of "
        f"any of the {calibration.n} cases it was fitted on (at most "
        f"{100 * calibration.largest_shift:.0f} %): the case may be unlike them. Compare with "
        "calibration off"
    ]


def calibration_record(
    calibration: Calibration, input_hash: str, shift: float = 0.0
) -> dict[str, Any]:
    """The entry of ``<case>_run.json`` on the calibration.

    ``includes_this_case``: whether it was fitted on this very image; ``shift``: how far it moved
    the foreground, see ``fit.shift``.
    """
    fitted = calibration.fitted_on
    return {
        "method": calibration.method,
        "temperature": list(calibration.scaling.temperature),
        "bias": list(calibration.scaling.bias),
        "shift": shift,
        **{name: fitted.get(name) for name in ("data", "cases", "patients")},
        "includes_this_case": input_id(input_hash) in fitted.get("inputs", ()),
    }


def input_id(input_hash: str) -> str:
    """The identifier of an image in a calibration: the first 16 digits of its hash."""
    return input_hash[:16]


def guarantee_record(
    mean: NDArray[np.float32],
    voxel_ml: float,
    labels: Mapping[int, str],
    guarantee: Mapping[str, ClassGuarantee],
    level: float,
) -> dict[str, Any]:
    """The entry of ``<case>_run.json`` on a guarantee: level, thresholds and volumes by class.

    Args:
        mean: Calibrated mean probability (K, *shape) in [0, 1].
        voxel_ml: Volume of a voxel, in ml.
        labels: Names by class number, background included.
        guarantee: Guarantee of each foreground class.
        level: Level of the guarantee, in (0, 1).
    """
    classes = {}
    for value, label in labels.items():
        if value:
            one = guarantee[class_slug(label)]
            low, high = one.volume(mean[value])
            classes[class_slug(label)] = {
                "inner_threshold": one.inner,
                "outer_threshold": one.outer,
                "vacuous": list(one.vacuous),
                "volume_ml": [low * voxel_ml, None if high is None else high * voxel_ml],
            }
    return {"level": level, "classes": classes}
