"""Predictions of the same cases by several models, or by several folds of one: an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

from medsegdiff.core.errors import InputError
from medsegdiff.other_models.predicted import (
    OtherModel,
    PredictedCase,
    Predictions,
)


def joined(several: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    """The predictions whose members are those of each, case by case.

    Args:
        several: Predictions of each model, one at least.
        names: Names of their folders, for messages.

    Raises:
        InputError: they have different classes, or no case in common.
    """
    if len(several) == 1:
        return several[0]
    first = several[0].model
    for other, name in zip(several[1:], names[1:], strict=True):
        if other.model.classes != first.classes:
            rule = f"has the classes {_told(other.model)}, but {names[0]} has {_told(first)}"
            raise InputError(name, rule, "Adopt together what has the same classes")
    cases, failures = {}, {k: v for one in several for k, v in one.failures.items()}
    for name in sorted(set().union(*(one.cases for one in several))):
        lacking = [n for one, n in zip(several, names, strict=True) if name not in one.cases]
        if lacking:
            rule = f"has no partner in {', '.join(lacking)}"
            failures.setdefault(name, InputError(name, rule, "Add its prediction there"))
        elif name not in failures:
            members = (member for one in several for member in one.cases[name].members)
            cases[name] = PredictedCase(tuple(members))
    if not cases:
        raise InputError(", ".join(names), "have no case in common", "Name the cases alike")
    notes = tuple(dict.fromkeys(note for one in several for note in one.notes))
    layout = f"{len(several)} folders side by side ({several[0].layout})"
    resampled = any(one.resampled for one in several)
    return Predictions(layout, _model(several), cases, failures, notes, resampled)


def _model(several: Sequence[Predictions]) -> OtherModel:
    """The model itself where all are of one, such as the folds of a trainer; else all together."""
    models = [one.model for one in several]
    first, hard = models[0], all(model.hard for model in models)
    if len({model.hash for model in models}) == 1:
        return OtherModel(first.program, first.name, first.identity, first.classes, hard)
    programs = sorted({model.program for model in models})
    name = " + ".join(dict.fromkeys(model.name for model in models))
    identity = {"programs": programs, "models": sorted(model.hash for model in models)}
    return OtherModel(", ".join(programs), name, identity, first.classes, hard)


def _told(model: OtherModel) -> str:
    return ", ".join(name or "unnamed" for name in model.classes)
