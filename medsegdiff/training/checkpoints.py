"""Checkpoints of a run, and the record of the cases that it was trained on."""

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
"""Pattern of the file that a run writes after each epoch."""


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Path of the newest checkpoint in a run's folder; None if there is none."""
    found = sorted(Path(folder).glob(LAST), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def resume(folder: str | Path, state: Mapping[str, Any], trainer: Engine) -> None:
    """Make ``trainer`` continue the run in ``folder``: weights, optimizer, epoch.

    Args:
        folder: Folder of the run.
        state: Objects to restore, by their names in the checkpoint.
        trainer: Engine that will run.

    Raises:
        InputError: the folder has no checkpoint.
    """
    path = latest_checkpoint(folder)
    if path is None:
        raise InputError(folder, f"holds no {LAST} to resume from", "Train without resuming first")
    CheckpointLoader(str(path), dict(state), map_location={"cuda": "cpu"}).attach(trainer)


def write_cases(folder: str | Path, split: Sequence[Sequence[Case]]) -> None:
    """Write the names of a run's training and validation cases to ``folder/cases.json``."""
    names = ("training", "validation")
    listed = {name: [case.id for case in part] for name, part in zip(names, split, strict=True)}
    write_json(Path(folder) / "cases.json", listed)
