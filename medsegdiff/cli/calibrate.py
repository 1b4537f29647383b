"""``medsegdiff calibrate``: fits and checks the calibration of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import progress, refuse_missing, set_up
from medsegdiff.cli.options import BundleArgument, Data, Debug, Quiet, Verbose
from medsegdiff.core.types import ScalingChoice


def calibrate(
    bundle: BundleArgument,
    data: Data,
    predictions: Annotated[
        Path,
        typer.Option(
            help="Output of `medsegdiff segment --calibration off` for cases not trained on."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: models/calibration.json of the bundle."),
    ] = None,
    method: Annotated[
        ScalingChoice,
        typer.Option(help="Scaling; auto: the one that helps left-out patients, or none."),
    ] = "auto",
    splits: Annotated[
        int, typer.Option(min=0, help="Number of random splits of the patients for the check.")
    ] = 200,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Fits a bundle's calibration to segmented cases with references, and checks it.

    Example: medsegdiff calibrate hippocampus_mr --data data/hippocampus --predictions out
    """
    set_up(quiet, verbose)
    refuse_missing(bundle, "inference", data, predictions)
    from medsegdiff.calibration.calibrate_bundle import calibrate as run
    from medsegdiff.calibration.calibrate_bundle import summary_lines

    fitted = run(
        bundle,
        data,
        predictions,
        output,
        method=method,
        splits=splits,
        progress=progress,
    )
    for line in () if quiet else summary_lines(fitted):
        typer.echo(line)
