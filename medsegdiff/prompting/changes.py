"""Replaces some fields of options, for ``--set`` and the options of the commands."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from medsegdiff.core.errors import UsageError

T = TypeVar("T")


def changed(options: T, changes: Mapping[str, Any]) -> T:
    """Options with some fields replaced.

    Args:
        options: Frozen dataclass; its fields may be frozen dataclasses, too.
        changes: Fields -> values; a field of a nested dataclass is written as ``drawing#steps``. A
            list stands for a tuple.

    Raises:
        UsageError: a field does not exist; the message names the closest one.

    >>> from medsegdiff.prompting.prompt_options import PromptOptions
    >>> changed(PromptOptions(), {"draws": 2, "levels": [0.1]}).levels
    (0.1,)
    """
    known = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        name, _, rest = key.partition("#")
        if name not in known or (rest and not dataclasses.is_dataclass(known[name])):
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}"
            raise UsageError(key, f"is not one of {type(options).__name__}", remedy)
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            found[name] = tuple(value) if isinstance(known[name], tuple) else value
    for name, inner in nested.items():
        found[name] = changed(found.get(name, known[name]), inner)
    return dataclasses.replace(options, **found)  # type: ignore[type-var]
