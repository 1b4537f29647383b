"""Checkpoints of a run: written so that no kill and no full disk costs one, and found again."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError, reason_of

logger = logging.getLogger(__name__)

LAST = "last_checkpoint_epoch=*.pt"
"""Pattern of the file that a run writes after each epoch."""
KEPT = 2
"""Number of such files that are kept."""
NEEDED = frozenset({"network", "ema", "optimizer", "lr_scheduler", "trainer", "random"})
"""Keys without which a checkpoint is of another program."""


def checkpoints(folder: str | Path) -> list[Path]:
    """Paths of the checkpoints in a run's folder, the last epoch first."""
    found = [path for path in Path(folder).glob(LAST) if _NUMBERED.fullmatch(path.name)]
    return sorted(found, key=epoch_of, reverse=True)


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Path of the newest checkpoint in a run's folder; None if there is none."""
    return next(iter(checkpoints(folder)), None)


def epoch_of(path: Path) -> int:
    """Number of epochs that were done when a checkpoint was written, by its name.

    >>> epoch_of(Path("last_checkpoint_epoch=12.pt"))
    12
    """
    found = _NUMBERED.fullmatch(path.name)
    return int(found[1]) if found else 0


def save_content(path: str | Path, content: Mapping[str, Any]) -> None:
    """Save tensors to a file, which is replaced only once the new content is on the disk.

    Args:
        path: Path of the file.
        content: Tensors, numbers and texts, in dictionaries and lists.

    Raises:
        InputError: the disk is full, or the folder cannot be written to.
    """
    try:
        with written_aside(path, durable=True) as aside, aside.open("wb") as file:
            torch.save(content, file)
            file.flush()
    except OSError as error:
        rule = f"cannot be written ({error.strerror}); the checkpoints before it are intact"
        remedy = "Free some space on the disk, then go on with --resume"
        raise InputError(path, rule, remedy) from error


def save_epoch(folder: str | Path, epoch: int, content: Mapping[str, Any]) -> None:
    """Save the checkpoint of an epoch; then remove all of this and earlier epochs but ``KEPT``.

    Args:
        folder: Folder of the run.
        epoch: Number of epochs that are done.
        content: State of the run, for :func:`save_content`.
    """
    save_content(Path(folder) / LAST.replace("*", str(epoch)), content)
    known = [path for path in checkpoints(folder) if epoch_of(path) <= epoch]
    for old in known[KEPT:]:
        old.unlink(missing_ok=True)


def newest_that_loads(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Path and content of the newest checkpoint that is whole; the log names those that are not.

    Args:
        folder: Folder of the run.

    Raises:
        InputError: there is none.
    """
    found = checkpoints(folder)
    for path in found:
        try:
            content = _loaded(path)
        except Exception as error:
            logger.warning("%s is passed over: %s", path.name, reason_of(error))
            continue
        logger.info("going on from %s", path.name)
        return path, content
    if not found:
        raise InputError(folder, f"holds no {LAST} to resume from", "Train without --resume first")
    names = ", ".join(path.name for path in found)
    remedy = "Choose another folder and train again; best.pt has weights if there is one"
    raise InputError(folder, f"has no checkpoint that can be read, of {names}", remedy)


def _loaded(path: Path) -> dict[str, Any]:
    if path.stat().st_size == 0:
        raise InputError(path, "is empty (0 bytes)", "Use an earlier one")
    with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
        damaged = archive.testzip()
    if damaged is not None:
        raise InputError(path, f"is damaged (in {damaged})", "Use an earlier one")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(path, "holds more than tensors and numbers", "Use another") from error
    missing = sorted(NEEDED - content.keys())
    if missing:
        raise InputError(path, f"lacks {', '.join(missing)}", "It is of another program or version")
    return content


_NUMBERED = re.compile(r"last_checkpoint_epoch=(\d+)\.pt")
