"""What a run leaves behind to be taken up again, and to be understood later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.handlers import CheckpointLoader

from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case

LAST = "last_checkpoint_epoch=*.pt"
"""Name of the file that a run writes after each epoch."""


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint of a run that can be resumed, or None."""
    found = sorted(Path(folder).glob(LAST), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def resume(folder: str | Path, state: Mapping[str, Any], trainer: Engine) -> None:
    """Let ``trainer`` start where the run in ``folder`` stopped: weights, optimizer, epoch.

    Raises:
        InputError: if there is nothing to resume.
    """
    path = latest_checkpoint(folder)
    if path is None:
        raise InputError(folder, f"holds no {LAST} to resume from", "Train without resuming first")
    CheckpointLoader(str(path), dict(state), map_location={"cuda": "cpu"}).attach(trainer)


def write_cases(folder: str | Path, split: Sequence[Sequence[Case]]) -> None:
    """Write which cases a run trained on and which it held out, to ``folder/cases.json``."""
    names = ("training", "validation")
    listed = {name: [case.id for case in part] for name, part in zip(names, split, strict=True)}
    write_json(Path(folder) / "cases.json", listed)
