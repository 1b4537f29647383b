"""``medsegdiff counterfactual``: how images would look healthy, and where they do not."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from medsegdiff.cli.common import exit_with, refuse_missing, set_up
from medsegdiff.cli.options import (
    BundleKey,
    BundleName,
    Calibration,
    Debug,
    Device,
    Formats,
    Guidance,
    Output,
    Overwrite,
    Quiet,
    Seed,
    Settings,
    Steps,
    Verbose,
    given,
)


def counterfactual(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Image files, folders or zips of such.",
        ),
    ],
    bundle: BundleName,
    output: Output,
    level: Annotated[
        float | None,
        BundleKey(),
        typer.Option(help="Share of the time steps to noise an image to."),
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    encoding: Annotated[
        Literal["inversion", "noise"] | None,
        BundleKey(),
        typer.Option(help="DDIM backwards, or draws of noise. Else as the bundle says."),
    ] = None,
    draws: Annotated[
        int | None, BundleKey(), typer.Option(min=1, help="Of noise, with 'noise'.")
    ] = None,
    seed: Seed = None,
    device: Device = "auto",
    calibration: Calibration = None,
    calibrate: Annotated[
        str | None,
        typer.Option(help="Data to fit the bundle's calibration to first: its held-out fold."),
    ] = None,
    formats: Formats = None,
    overwrite: Overwrite = False,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Shows how images would look healthy, and where they do not, as a map and a probability.

    Exits with 1 if some case failed; the others are written all the same.

    Example: medsegdiff counterfactual scan.nii.gz --bundle phantom_counterfactual --output out
    """
    set_up(quiet, verbose)
    changes = given(counterfactual, locals())
    refuse_missing(bundle, "counterfactual", calibrate)
    from medsegdiff.counterfactual.maker import counterfactual as run

    failures = run(inputs, bundle, output, calibrate=calibrate, device=device, **changes)
    exit_with(failures, "" if quiet else f"written to {output}")
