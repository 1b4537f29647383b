"""``medsegdiff counterfactual``: makes healthy counterfactuals of images."""

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
    Trust,
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
        typer.Option(
            help="Share of the time steps to noise an image to. Default: as in the bundle."
        ),
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    encoding: Annotated[
        Literal["inversion", "noise"] | None,
        BundleKey(),
        typer.Option(help="Noising by DDIM inversion or by draws. Default: as in the bundle."),
    ] = None,
    draws: Annotated[
        int | None, BundleKey(), typer.Option(min=1, help="Number of draws, for --encoding noise.")
    ] = None,
    seed: Seed = None,
    device: Device = "auto",
    calibration: Calibration = None,
    calibrate: Annotated[
        str | None,
        typer.Option(help="Data whose held-out fold the bundle's calibration is fitted to first."),
    ] = None,
    formats: Formats = None,
    overwrite: Overwrite = False,
    settings: Settings = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Makes healthy counterfactuals of images, with maps of the differences and of a probability.

    Exits with 1 if a case failed; the other cases are written.

    Example: medsegdiff counterfactual scan.nii.gz --bundle phantom_counterfactual --output out
    """
    set_up(quiet, verbose)
    changes = given(counterfactual, locals())
    refuse_missing(bundle, "counterfactual", calibrate)
    from medsegdiff.counterfactual.maker import counterfactual as run

    failures = run(inputs, bundle, output, calibrate=calibrate, device=device, **changes)
    exit_with(failures, "" if quiet else f"written to {output}")
