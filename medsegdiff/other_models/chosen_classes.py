"""Which maps of a model belong to which class of the user's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import class_slug
from medsegdiff.other_models.predicted import Maps, OtherModel

Channels = dict[int, tuple[int, ...]]
"""Class number, from 1 -> numbers of the maps that it is the sum of."""


def parse_classes(text: str) -> dict[str, tuple[int, ...]]:
    """Reads which maps each class is made of.

    Raises:
        UsageError: it is not of the form ``NAME=NUMBER[+NUMBER]``, separated by commas.

    >>> parse_classes("liver=5, lungs=10+11")
    {'liver': (5,), 'lungs': (10, 11)}
    """
    found: dict[str, tuple[int, ...]] = {}
    try:
        for part in text.split(","):
            name, _, numbers = part.partition("=")
            found[name.strip()] = tuple(int(number) for number in numbers.split("+"))
    except ValueError:
        rule = f"must be NAME=NUMBER[+NUMBER], separated by commas, not {text!r}"
        raise UsageError("--classes", rule, "Write for instance liver=5,lungs=10+11") from None
    return found


def chosen_labels(
    model: OtherModel,
    labels: Mapping[int, str] | None,
    chosen: Mapping[str, Sequence[int]] | None,
    source: object,
) -> tuple[dict[int, str], Channels]:
    """The classes of the result, and the maps that each is made of.

    Args:
        model: Model that made the maps.
        labels: Names of the data set's classes by number, background included; None without data.
        chosen: Name of a class -> numbers of its maps, as the user says; None: by their names, or
            in their order where nobody named them.
        source: Folder of the predictions, for messages.

    Raises:
        InputError: the model does not have the classes of the data set, or nobody names them.
        UsageError: a class or the number of a map does not exist.
    """
    count = len(model.classes)
    names = {1 + i: name for i, name in enumerate(model.classes[1:])}
    if labels is None:
        labels = _labels_alone(names, chosen, source)
    wanted = {value: name for value, name in labels.items() if value}
    if chosen is not None:
        return dict(labels), _as_asked(wanted, chosen, count)
    by_name = {class_slug(name): i for i, name in names.items() if name is not None}
    slugs = {value: class_slug(name) for value, name in wanted.items()}
    if set(slugs.values()) <= set(by_name):
        return dict(labels), {value: (by_name[slug],) for value, slug in slugs.items()}
    if None in names.values() and len(names) == len(wanted):
        return dict(labels), {value: (value,) for value in wanted}
    told = ", ".join(f"{i} {name or 'unnamed'}" for i, name in names.items())
    rule = f"has the classes {told}, but the data set has {', '.join(wanted.values())}"
    remedy = f"Say which are which, such as --classes {next(iter(slugs.values()))}=1"
    raise InputError(source, rule, remedy)


def _labels_alone(
    names: Mapping[int, str | None], chosen: Mapping[str, Sequence[int]] | None, source: object
) -> dict[int, str]:
    if chosen is not None:
        return {0: "background", **dict(enumerate(chosen, start=1))}
    if None in names.values():
        rule = f"does not name all of its {len(names)} classes"
        raise InputError(source, rule, "Add --data, whose labels name them, or --classes")
    return {0: "background", **{i: str(name) for i, name in names.items()}}


def _as_asked(
    wanted: Mapping[int, str], chosen: Mapping[str, Sequence[int]], count: int
) -> Channels:
    by_slug = {class_slug(name): tuple(numbers) for name, numbers in chosen.items()}
    slugs = {value: class_slug(name) for value, name in wanted.items()}
    if set(by_slug) != set(slugs.values()):
        rule = f"names {', '.join(by_slug)}, but the classes are {', '.join(slugs.values())}"
        raise UsageError("--classes", rule, "Name each of these once")
    for numbers in by_slug.values():
        for number in numbers:
            if not 1 <= number < count:
                rule = f"{number} is no map of a class, which are 1 to {count - 1}"
                raise UsageError("--classes", rule, "Correct the number")
    return {value: by_slug[slug] for value, slug in slugs.items()}


def selected(maps: Maps, channels: Channels, source: Path) -> Maps:
    """Maps (K, *shape) of the chosen classes; all others count as background.

    Args:
        maps: Probabilities (C, *shape) of all maps of the model, summing to 1.
        channels: Maps that each class is made of.
        source: File of the maps, for messages.

    Raises:
        InputError: the file has too few maps.
    """
    highest = max(number for numbers in channels.values() for number in numbers)
    if highest >= len(maps):
        rule = f"has {len(maps)} maps, but map {highest} is needed"
        raise InputError(source, rule, "Predict the case with the same model as the others")
    chosen = [maps[list(channels[value])].sum(axis=0) for value in sorted(channels)]
    background = (1.0 - np.sum(chosen, axis=0)).clip(0.0, 1.0)
    return np.stack([background, *chosen]).astype(np.float32)
