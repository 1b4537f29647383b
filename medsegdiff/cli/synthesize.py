"""``medsegdiff synthesize``: draws new cases with masks from a bundle's model."""

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
    Trust,
    Verbose,
    given,
)


def synthesize(
    bundle: BundleArgument,
    data: Annotated[
        str,
        typer.Option(help="Training data of the bundle: a dataset.json, its folder, or a name."),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the new data set.")],
    count: Annotated[int, typer.Option(min=1, help="Number of cases to keep.")] = 20,
    seed: Seed = None,
    fold: HeldOut = None,
    steps: Steps = None,
    guidance: Guidance = None,
    masks: Annotated[
        str | None,
        BundleKey(),
        typer.Option(help="Data whose masks, deformed, are given. Default: the training data."),
    ] = None,
    segmenter: Annotated[
        str | None,
        BundleKey(),
        typer.Option(
            help="Bundle whose masks must agree with the drawn ones; none: no such check."
        ),
    ] = None,
    agreement: Annotated[
        float | None,
        BundleKey(),
        typer.Option(help="Least mean Dice with the segmenter's masks. Default: as in the bundle."),
    ] = None,
    overwrite: Overwrite = False,
    settings: Settings = None,
    device: Device = "auto",
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Draws new cases with masks, drops implausible ones and copies, and writes a data set.

    Exits with 1 if too few cases pass the checks; those that pass are written.

    Example: medsegdiff synthesize hippocampus_synthesis --data data/hippocampus --output synthetic
    --count 20
    """
    set_up(quiet, verbose)
    changes = given(synthesize, locals())
    refuse_missing(bundle, "synthesize", data)
    from medsegdiff.synthesis.synthetic_data import synthesize as run

    run(bundle, data, output, count=count, device=device, **changes)
    typer.echo(output / "dataset.json")
