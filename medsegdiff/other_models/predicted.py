"""What other programs left: a model, and for each case the maps of its members."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry

Maps = NDArray[np.float32]
"""Probabilities (K, *shape) in [0, 1] of one member, the background first, summing to 1."""

Read = Callable[[], tuple[Maps, Geometry]]
"""Reads the maps of a member, and their geometry.

Raises:
    InputError: a file is missing or damaged, or holds something else than probabilities.
"""


@dataclass(frozen=True)
class Member:
    """Maps of one case by one network.

    Attributes:
        files: Paths of the files that they are read from.
        read: Function that reads them.
    """

    files: tuple[Path, ...]
    read: Read


@dataclass(frozen=True)
class PredictedCase:
    """One case that another program has predicted.

    Attributes:
        members: Members, each the maps of one network; one, where there is one map.
        network: Name of the single network that made them, where the model has several and each
            made a part of the cases; None otherwise.
    """

    members: tuple[Member, ...]
    network: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case."""
        return tuple(file for member in self.members for file in member.files)


@dataclass(frozen=True)
class OtherModel:
    """A model of another program.

    Attributes:
        program: Name of the program.
        name: Name of the model for people.
        identity: Entries that tell it from other models, as JSON; None where the files do not say.
        classes: Names of the maps' channels, background first; None for one that nobody named.
        hard: Whether its maps are masks: each probability is 0 or 1.
    """

    program: str
    name: str
    identity: dict[str, Any]
    classes: tuple[str | None, ...]
    hard: bool = False

    @property
    def hash(self) -> str:
        """SHA-256 of the identity, in hexadecimal."""
        return json_digest(self.identity)


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model in one folder, or of several side by side.

    Attributes:
        layout: Name of the layout for people.
        model: Model that made them.
        cases: Name of a case -> its prediction.
        failures: Name of a case that cannot be used -> reason.
        notes: Sentences on what was inferred.
        resampled: Whether the maps may lie on another grid than the images.
    """

    layout: str
    model: OtherModel
    cases: dict[str, PredictedCase]
    failures: dict[str, InputError] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    resampled: bool = False


@dataclass(frozen=True)
class Known:
    """What is known of predictions before they are looked at.

    Attributes:
        cases: Names of the cases of the user's data; empty without data.
        classes: Names of the foreground classes as in file names; empty where nobody named them.
        channels: Number of channels of the maps, background included; None: not known.
        model: Name that the user gave to the model, or None.
    """

    cases: frozenset[str] = frozenset()
    classes: tuple[str, ...] = ()
    channels: int | None = None
    model: str | None = None


def json_digest(content: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON value, whatever the order of its keys.

    >>> json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
