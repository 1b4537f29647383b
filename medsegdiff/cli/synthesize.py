"""``medsegdiff synthesize``: new cases, with masks, from a bundle's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import refuse_missing, set_up
from medsegdiff.cli.options import (
    BundleArgument,
    BundleKey,
    Debug,
    Device,
    Guidance,
    HeldOut,
    Overwrite,
    Quiet,
    Seed,
    Settings,
    Steps,
    Verbose,
    given,
)


def synthesize(
    bundle: BundleArgument,
    data: Annotated[
        str, typer.Option(help="What it was trained on: a dataset.json, its folder, or a name.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the new data set.")],
    count: Annotated[int, typer.Option(min=1, help="Cases wanted.")] = 20,
    seed: Seed = None,
    fold: HeldOut = None,
    steps: Steps = None,
    guidance: Guidance = None,
    masks: Annotated[
        str | None,
        BundleKey(),
        typer.Option(help="Data whose masks are given, deformed. Else those of the training."),
    ] = None,
    segmenter: Annotated[
        str | None,
        BundleKey(),
        typer.Option(help="Bundle that masks have to agree with; none: no such check."),
    ] = None,
    agreement: Annotated[
        float | None,
        BundleKey(),
        typer.Option(help="Least mean Dice with it. Else as the bundle says."),
    ] = None,
    overwrite: Overwrite = False,
    settings: Settings = None,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Draws new cases with masks, leaves out what is implausible or a copy, and writes a data set.

    Exits with 1 if too few cases were fit; those that were are written all the same.

    Example: medsegdiff synthesize hippocampus_synthesis --data data/hippocampus --output synthetic
    --count 20
    """
    set_up(quiet, verbose)
    changes = given(synthesize, locals())
    refuse_missing(bundle, "synthesize", data)
    from medsegdiff.synthesis.synthetic_data import synthesize as run

    run(bundle, data, output, count=count, device=device, **changes)
    typer.echo(output / "dataset.json")
