"""Train a bundle, with checks that MONAI's own command does not make."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medsegdiff.bundle.bundle import LOCATOR_FILE, Bundle, device_change, load_bundle
from medsegdiff.core.atomic_files import remove_unfinished, written_aside
from medsegdiff.core.errors import InputError, UsageError, surfacing_input_errors
from medsegdiff.core.stopping import stopping_on_signals
from medsegdiff.data.manifest import Manifest, load_manifest
from medsegdiff.training.checkpoints import LAST, checkpoints
from medsegdiff.training.processes import is_first, join_processes, processes, wait_for_all
from medsegdiff.training.run_comparison import refuse_other_settings
from medsegdiff.training.run_lock import locked
from medsegdiff.training.tracking import check_tracking, tracking_address

logger = logging.getLogger(__name__)

WEIGHTS = ("best.pt", "final.pt")
"""Files of averaged weights that a run leaves."""


def train(
    bundle: str | Path | Bundle,
    data: str | Path,
    output: str | Path,
    *,
    fold: int = 0,
    resume: bool = False,
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    run_name: str = "",
    tags: Mapping[str, str] | None = None,
) -> None:
    """Train a bundle on data and leave checkpoints, cases and settings in a folder.

    Args:
        bundle: Name, path or bundle with the configuration ``configs/train``.
        data: Path of a data set's description, its folder, or a known name.
        output: Folder of the run: ``best.pt`` and ``final.pt`` (averaged weights),
            ``last_checkpoint_epoch=N.pt`` (to resume), ``cases.json``, ``config.yaml``.
        fold: Number of the fold that is held out.
        resume: Whether to continue from the last checkpoint in ``output``; settings, cases and fold
            must be those of the run, and then it ends as if it had never stopped.
        device: Name of a torch device, or ``auto``.
        overrides: Values by configuration id, which replace those of the bundle.
        run_name: Name of the run at MLflow; empty: of the folder and the fold.
        tags: Tags of the run at MLflow.

    Raises:
        InputError: the data cannot be used; ``output`` holds a run and ``resume`` is not set; or
            it holds none and ``resume`` is set; or its settings were others; or another process
            trains there.
        UsageError: a key of ``overrides`` is unknown, or the device cannot be used.
        Stopped: the process was asked to end, by SIGTERM or Ctrl-C.
    """
    bundle, output, manifest = load_bundle(bundle), Path(output), load_manifest(data)
    manifest.split(fold)  # raises a clear error before anything else starts
    check_labels(manifest, bundle)
    resumed = can_be_resumed(output, resume)
    if processes() > 1:
        own = join_processes()
        device = str(own) if device == "auto" else device
    changes = {
        "dataset_dir": str(data),
        "output_dir": str(output),
        "fold": fold,
        "resume": resumed,
        **device_change(device),
        **(overrides or {}),
    }
    parser = bundle.parser("train", changes)
    if processes() > 1 and "run_handlers" not in parser.config:
        rule = f"is trained by {processes()} processes, which only 'run_handlers' shares out"
        raise UsageError(bundle.name, rule, "Start it once, without torch.distributed.run")
    if run_name or tags:
        parser.update({"run_handlers#run_name": run_name, "run_handlers#tags": dict(tags or {})})
    output.mkdir(parents=True, exist_ok=True)
    alone = locked(output) if is_first() else nullcontext()
    with stopping_on_signals(), alone, surfacing_input_errors():
        _run(parser, output, resumed)


def _run(parser: ConfigParser, output: Path, resumed: bool) -> None:
    """Train by a configuration, in a folder that is locked."""
    started = time.monotonic()
    if resumed:
        refuse_other_settings(output, parser.config)
    wait_for_all()  # until all have seen what was there
    if is_first():
        _prepare(parser, output, resumed)
    wait_for_all()
    parser.parse()
    if (
        is_first() and "tracking_uri" in parser.config
    ):  # before data are read, which may take minutes
        check_tracking(tracking_address(parser.get_parsed_content("tracking_uri")))
    for section in ("initialize", "run"):
        for index in range(len(parser[section])):
            parser.get_parsed_content(f"{section}#{index}")
    logger.info("trained for %.0f s, weights in %s", time.monotonic() - started, output)


def _prepare(parser: ConfigParser, output: Path, resumed: bool) -> None:
    """Clear the folder of what an earlier start has left, and write the configuration."""
    remove_unfinished(output)
    if not resumed:  # of a run that was stopped in its first epoch, perhaps with other cases
        (output / LOCATOR_FILE).unlink(missing_ok=True)
    with written_aside(output / "config.yaml") as aside:
        ConfigParser.export_config_file(parser.config, str(aside), fmt="yaml")


def can_be_resumed(output: Path, resume: bool) -> bool:
    """Whether to go on from a checkpoint in a folder; refuses what was not asked for.

    A run that was stopped in its first epoch has none, and begins again, which is the same run.

    Args:
        output: Folder of the run.
        resume: Whether to go on was asked for.

    Raises:
        InputError: the folder holds a run, and to go on was not asked for; or it holds none.
    """
    found = checkpoints(output)
    if not resume:
        if found or any((output / name).exists() for name in WEIGHTS):
            remedy = "Add --resume, or choose another folder"
            raise InputError(output, "already holds a run", remedy)
        return False
    if not found and not (output / "config.yaml").exists():
        raise InputError(output, f"holds no {LAST} to resume from", "Train without --resume first")
    if not found:
        logger.warning("%s has no epoch that is done: the run begins again", output)
    return bool(found)


def check_labels(manifest: Manifest, bundle: Bundle) -> None:
    """Refuse a data set whose label values are not those of the bundle's network.

    Raises:
        InputError: the label values differ; the message names both.
    """
    if sorted(manifest.labels) != sorted(bundle.labels):
        raise InputError(
            manifest.name,
            f"has the labels {manifest.labels}, but the bundle {bundle.name} {bundle.labels}",
            "Use another bundle, or a copy of it with num_classes and channel_def changed",
        )
