"""``medsegdiff train``: a bundle and data in, a trained run out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import Debug, Device, Quiet, Verbose, parse_overrides, set_up


def train(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Its folder, or the name of one we ship.")
    ],
    data: Annotated[
        str, typer.Option(help="A dataset.json, its folder, a known name, or NAME=FOLDER.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, log, settings.")],
    fold: Annotated[int, typer.Option(min=0, help="The fold that is held out.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last epoch.")] = False,
    device: Device = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the bundle; can be repeated."
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Trains the model of a bundle on a data set.

    Example: medsegdiff train hippocampus_mr --data data/hippocampus --output runs/1
    --set train#trainer#max_epochs=5
    """
    set_up(quiet, verbose)
    overrides = parse_overrides(settings or [])
    from medsegdiff.bundle.bundle import load_bundle
    from medsegdiff.training.run import train as run

    run(
        load_bundle(bundle),
        data,
        output,
        fold=fold,
        resume=resume,
        device=device,
        overrides=overrides,
    )
