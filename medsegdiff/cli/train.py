"""``medsegdiff train``: trains the model of a bundle on a data set."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import parse_overrides, refuse_missing, set_up
from medsegdiff.cli.options import (
    BundleArgument,
    Data,
    Debug,
    Device,
    Quiet,
    Settings,
    Trust,
    Verbose,
)


def train(
    bundle: BundleArgument,
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, log, settings.")],
    fold: Annotated[int, typer.Option(min=0, help="Number of the held-out fold.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue after the last epoch.")
    ] = False,
    device: Device = "auto",
    settings: Settings = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Trains the model of a bundle on a data set.

    Example: medsegdiff train hippocampus_mr --data data/hippocampus --output runs/1
    --set train#trainer#max_epochs=5
    """
    set_up(quiet, verbose)
    changes = parse_overrides(settings or [])
    refuse_missing(bundle, "train", data)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it logs what is raised as well
    from medsegdiff.core.stopping import Stopped, stopping_on_signals

    try:
        with stopping_on_signals():
            from medsegdiff.training.run import train as run

            run(bundle, data, output, fold=fold, resume=resume, device=device, overrides=changes)
    except Stopped as stop:
        words = ["medsegdiff", "train", bundle, "--data", data, "--output", str(output)]
        words += ["--fold", str(fold), "--resume", "--device", device]
        words += [word for setting in settings or [] for word in ("--set", setting)]
        typer.echo(f"medsegdiff: {stop}: {_safe(output)}. Go on by: {shlex.join(words)}", err=True)
        raise typer.Exit(stop.exit_code) from None


def _safe(output: Path) -> str:
    """What of a stopped run is on the disk."""
    from medsegdiff.training.checkpoints import latest_checkpoint

    found = latest_checkpoint(output)
    return f"all up to {found.name} is safe" if found else "no epoch was done yet"
