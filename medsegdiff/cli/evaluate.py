"""``medsegdiff evaluate``: compares predictions with references, in figures and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import exit_with, progress, refuse_missing, set_up
from medsegdiff.cli.options import Data, Debug, Quiet, Verbose


def evaluate(
    data: Data,
    predictions: Annotated[Path, typer.Option(help="Output folder of `medsegdiff segment`.")],
    output: Annotated[
        Path, typer.Option(help="Folder for report.html, report.json and cases.csv.")
    ],
    tolerance_mm: Annotated[
        float, typer.Option(help="Distance in mm that the surface Dice counts as agreement.")
    ] = 1.0,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Compares segmented cases with their references and writes a report.

    Example: medsegdiff evaluate --data data/hippocampus --predictions out --output report
    """
    set_up(quiet, verbose)
    refuse_missing(data=data, folder=predictions)
    from medsegdiff.evaluation.folder import evaluate as run

    failures = run(
        data, predictions, output, tolerance_mm=tolerance_mm, progress=progress("evaluating")
    )
    page = output / "report.html"
    if page.exists():  # it does not if all cases failed
        typer.echo(page)
    exit_with(failures, "")
