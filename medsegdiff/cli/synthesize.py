"""``medsegdiff synthesize``: new cases, with masks, from a bundle's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import Debug, Device, Quiet, Verbose, set_up


def synthesize(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or the name of one we ship.")
    ],
    data: Annotated[
        str, typer.Option(help="What it was trained on: a dataset.json, its folder, or a name.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the new data set.")],
    count: Annotated[int, typer.Option(min=1, help="Cases wanted.")] = 20,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The same seed gives the same cases. Else as the bundle says."),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Held out in training. Else as the bundle says.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps. Else as the bundle says.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="By a mask that is given. Else as the bundle says.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="Data whose masks are given, deformed. Else those of the training."),
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(help="Bundle that masks have to agree with; none: no such check."),
    ] = None,
    agreement: Annotated[
        float | None, typer.Option(help="Least mean Dice with it. Else as the bundle says.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again, instead of going on.")
    ] = False,
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
    from medsegdiff.bundle.bundle import load_bundle
    from medsegdiff.synthesis.synthetic_data import synthesize as run

    run(
        load_bundle(bundle),
        data,
        output,
        count=count,
        seed=seed,
        fold=fold,
        steps=steps,
        guidance=guidance,
        masks=masks,
        segmenter=segmenter,
        agreement=agreement,
        overwrite=overwrite,
        device=device,
    )
    typer.echo(output / "dataset.json")
