"""The calibration of another program's model: read, and refused where it is of another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medsegdiff.calibration.fitted import Calibration, read_calibration
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import class_slug
from medsegdiff.other_models.predicted import OtherModel

WHAT = {
    "program": "program",
    "plans": "plans",
    "labels": "labels",
    "trainer": "trainer and configuration",
    "task": "task",
    "channels": "number of classes",
    "model": "model",
    "models": "models",
    "classes": "classes",
}
"""Key of an identity -> words."""

MAY_BE_UNKNOWN = ("trainer",)
"""Keys that the files of some predictions do not say; what the calibration says is then taken."""


def calibration_of(
    path: Path | None, model: OtherModel, labels: Mapping[int, str], level: float | None
) -> tuple[Calibration | None, OtherModel]:
    """The calibration in a file, and the model, completed by what the calibration says of it.

    Args:
        path: Path of the file; None: no calibration.
        model: Model that made the predictions.
        labels: Names of the classes by number, background included.
        level: Level of the guarantee that is wanted, in (0, 1); None: no guarantee.

    Raises:
        UsageError: the level is outside of (0, 1), or a guarantee is wanted without calibration.
        InputError: the file is missing or unreadable, or was fitted to a bundle, another model or
            other classes.
    """
    if level is not None and not 0.0 < level < 1.0:
        rule = f"must lie between 0 and 1, not be {level}"
        raise UsageError("--guarantee", rule, "Give for instance 0.9")
    if path is None:
        if level is not None:
            rule = "follows from a calibration, and none is given"
            raise UsageError(
                "--guarantee", rule, "Add --calibration FILE, see medsegdiff calibrate"
            )
        return None, model
    if not path.is_file():
        raise InputError(path, "no such file", "Make it by medsegdiff calibrate")
    found = read_calibration(path, {v: class_slug(name) for v, name in labels.items()})
    fitted = found.fitted_on.get("model")
    if not isinstance(fitted, dict):
        rule = "was fitted to a bundle of this package, not to another program's model"
        raise InputError(path, rule, "Fit one to the model's predictions: medsegdiff calibrate")
    completed = _completed(model.identity, fitted)
    different = [key for key in {**fitted, **completed} if fitted.get(key) != completed.get(key)]
    if different:
        told = ", ".join(WHAT.get(key, key) for key in different)
        rule = f"was fitted to predictions of another model ({told} differ)"
        raise InputError(path, rule, "Fit one to held-out predictions of this model")
    name = (
        str(found.fitted_on.get("bundle", model.name))
        if completed != model.identity
        else model.name
    )
    return found, replace(model, identity=completed, name=name)


def _completed(own: Mapping[str, Any], fitted: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [key for key in MAY_BE_UNKNOWN if own.get(key, "") is None]
    return {**own, **{key: fitted.get(key) for key in unknown}}
