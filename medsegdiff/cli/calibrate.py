"""``medsegdiff calibrate``: probabilities that come true, and what guarantees need."""

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
            help="What `medsegdiff segment --calibration off` wrote, of cases not trained on."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Else models/calibration.json of the bundle.")
    ] = None,
    method: Annotated[
        ScalingChoice,
        typer.Option(help="Scaling to use; auto: the one that helps patients left out, or none."),
    ] = "auto",
    splits: Annotated[
        int, typer.Option(min=0, help="Random splits of the patients that it is checked with.")
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
