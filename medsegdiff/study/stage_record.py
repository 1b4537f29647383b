"""The stages of a study: which are done, with what inputs. ``study.json`` holds it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import STUDY
from medsegdiff.core.atomic_files import read_json, write_json
from medsegdiff.core.errors import InputError

logger = logging.getLogger(__name__)

LONG = 60.0
"""Seconds from which a stage that is done again is warned of."""


@dataclass(frozen=True)
class Stage:
    """A part of a study that is done once, as long as its inputs stay the same.

    Attributes:
        name: Name in ``study.json`` and in messages, such as ``train fold 0``.
        inputs: Function that gives a digest for each thing that the stage depends on. It is called
            when the earlier stages are done.
        do: Function that does the stage. After an interruption it is called again, and may use
            what it had left in ``outputs``.
        outputs: Files and folders that the stage makes, and that are removed when its inputs have
            changed.
        kind: Word for stages that take a similar time.
    """

    name: str
    inputs: Callable[[], Mapping[str, str]]
    do: Callable[[], None]
    outputs: tuple[Path, ...] = ()
    kind: str = ""


class StageRecord:
    """The file ``study.json`` of a study.

    Args:
        root: Folder of the study; it is made if it is missing.

    Raises:
        InputError: the folder holds something else than a study.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / STUDY
        if root.exists() and not self.path.is_file() and any(root.iterdir()):
            rule = "holds files, but no study"
            raise InputError(root, rule, "Choose another folder, or an empty one")
        content = read_json(self.path) if self.path.is_file() else {}
        if not isinstance(content, dict):
            rule = "cannot be read as the record of a study"
            raise InputError(self.path, rule, "Choose another folder, or remove this one")
        self.stages: dict[str, dict[str, Any]] = content.get("stages", {})
        self.files: dict[str, list[Any]] = content.get("files", {})
        self.tracked: str | None = content.get("mlflow_run")
        self.write()

    def write(self) -> None:
        """Write the file."""
        known = {"stages": self.stages, "files": self.files, "mlflow_run": self.tracked}
        write_json(self.path, known)

    def seconds(self, name: str) -> float:
        """Time that a stage has taken, interrupted attempts included; 0 if it was not begun."""
        return float(self.stages.get(name, {}).get("seconds", 0.0))

    def run(self, stage: Stage, begin: Callable[[], None] = lambda: None) -> bool:
        """Do a stage, unless it is done already with the same inputs.

        Args:
            stage: Stage to do.
            begin: Function to call before it is done.

        Returns:
            Whether it was done now.
        """
        inputs, found = dict(stage.inputs()), self.stages.get(stage.name, {})
        same = found.get("inputs") == inputs
        if same and found.get("done") and all(path.exists() for path in stage.outputs):
            return False
        begin()
        if not same:
            self._tell(stage, found, inputs)
            for path in stage.outputs:
                remove(path)
        before = float(found.get("seconds", 0.0)) if same else 0.0
        entry = {"inputs": inputs, "done": False, "seconds": before}
        self.stages[stage.name] = entry
        self.write()
        started = time.monotonic()
        try:
            stage.do()
            entry["done"] = True
        finally:
            entry["seconds"] = round(before + time.monotonic() - started, 2)
            self.write()
        return True

    def _tell(self, stage: Stage, found: Mapping[str, Any], now: Mapping[str, str]) -> None:
        before, seconds = found.get("inputs", {}), float(found.get("seconds", 0.0))
        if not before:
            return
        names = sorted({*before, *now})
        changed = [name for name in names if before.get(name) != now.get(name)]
        level = logging.WARNING if seconds >= LONG else logging.INFO
        lost = f" (it took {seconds / 60:.0f} min)" if seconds >= LONG else ""
        told = ", ".join(changed)
        logger.log(level, "%s%s is done again: changed is %s", stage.name, lost, told)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def value_digest(value: Any) -> str:
    """SHA-256, in hexadecimal, of a value of dictionaries, lists, texts and numbers.

    >>> value_digest({"a": 1, "b": 2}) == value_digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
