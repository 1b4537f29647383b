"""``medsegdiff counterfactual``: how images would look healthy, and where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medsegdiff.cli.common import (
    FORMATS_HELP,
    Debug,
    Device,
    Quiet,
    Verbose,
    exit_with,
    parse_formats,
    set_up,
)
from medsegdiff.core.types import CalibrationUse


def counterfactual(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Image files, folders or zips of such.",
        ),
    ],
    bundle: Annotated[str, typer.Option(help="A bundle's folder, or the name of one we ship.")],
    output: Annotated[Path, typer.Option(help="Gets a folder for each case.")],
    level: Annotated[
        float | None, typer.Option(help="Share of the time steps to noise an image to.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps of a way.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Towards the healthy class. Else as the bundle says.")
    ] = None,
    encoding: Annotated[
        Literal["inversion", "noise"] | None,
        typer.Option(help="DDIM backwards, or draws of noise. Else as the bundle says."),
    ] = None,
    draws: Annotated[int | None, typer.Option(min=1, help="Of noise, with 'noise'.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same maps.")
    ] = None,
    device: Device = "auto",
    calibration: Annotated[
        CalibrationUse | None,
        typer.Option(help="Whether the bundle's calibration is applied. Else as the bundle says."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(help="Data to fit the bundle's calibration to first: its held-out fold."),
    ] = None,
    formats: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = "nifti",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Do cases again that are done.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Shows how images would look healthy, and where they do not, as a map and a probability.

    Exits with 1 if some case failed; the others are written all the same.

    Example: medsegdiff counterfactual scan.nii.gz --bundle phantom_counterfactual --output out
    """
    set_up(quiet, verbose)
    chosen = parse_formats(formats)
    from medsegdiff.bundle.bundle import load_bundle
    from medsegdiff.counterfactual.maker import counterfactual as run

    failures = run(
        inputs,
        load_bundle(bundle),
        output,
        level=level,
        steps=steps,
        guidance=guidance,
        encoding=encoding,
        draws=draws,
        seed=seed,
        device=device,
        calibration=calibration,
        calibrate=calibrate,
        formats=chosen,
        overwrite=overwrite,
    )
    exit_with(failures, "" if quiet else f"written to {output}")
