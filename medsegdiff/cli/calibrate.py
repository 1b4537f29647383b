"""``medsegdiff calibrate``: fits and checks the calibration of a bundle or another model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medsegdiff.cli.common import progress, refuse_missing, set_up
from medsegdiff.cli.options import (
    Data,
    Debug,
    OtherClasses,
    OtherLayout,
    OtherModel,
    Quiet,
    Verbose,
)
from medsegdiff.core.errors import UsageError
from medsegdiff.core.types import ScalingChoice

if TYPE_CHECKING:
    from medsegdiff.calibration.fitted import Calibration


def calibrate(
    data: Data,
    predictions: Annotated[
        list[Path],
        typer.Option(
            help="Output of `medsegdiff segment --calibration off`, or predictions of another "
            "program, for cases not trained on; several are members."
        ),
    ],
    bundle: Annotated[
        str | None,
        typer.Argument(
            metavar="[BUNDLE]", help="Bundle that made them; without, another program's model did."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: models/calibration.json of the bundle."),
    ] = None,
    classes: OtherClasses = None,
    model: OtherModel = None,
    layout: OtherLayout = "auto",
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
    """Fits a calibration to predictions with references, and checks it.

    Example: medsegdiff calibrate hippocampus_mr --data data/hippocampus --predictions out
    """
    set_up(quiet, verbose)
    if bundle is None:
        fitted = _of_other(data, predictions, output, classes, model, layout, method, splits)
    else:
        fitted = _of_bundle(bundle, data, predictions, output, method, splits)
    from medsegdiff.calibration.calibrate_bundle import summary_lines

    for line in () if quiet else summary_lines(fitted):
        typer.echo(line)


def _of_bundle(
    bundle: str,
    data: str,
    predictions: list[Path],
    output: Path | None,
    method: ScalingChoice,
    splits: int,
) -> Calibration:
    if len(predictions) > 1:
        rule = "takes one folder with a bundle"
        raise UsageError("--predictions", rule, "Leave out the others")
    refuse_missing(bundle, "inference", data, predictions[0])
    from medsegdiff.calibration.calibrate_bundle import calibrate as run

    how: dict[str, Any] = {"method": method, "splits": splits, "progress": progress}
    return run(bundle, data, predictions[0], output, **how)


def _of_other(
    data: str,
    predictions: list[Path],
    output: Path | None,
    classes: str | None,
    model: str | None,
    layout: Any,
    method: ScalingChoice,
    splits: int,
) -> Calibration:
    if output is None:
        rule = "is needed where no bundle keeps the calibration"
        raise UsageError("--output", rule, "Give for instance --output calibration.json")
    for folder in predictions:
        refuse_missing(data=data, folder=folder)
    from medsegdiff.other_models.calibrate_adopted import calibrate_other
    from medsegdiff.other_models.chosen_classes import parse_classes

    return calibrate_other(
        data,
        predictions,
        output,
        classes=parse_classes(classes) if classes else None,
        model=model,
        layout=layout,
        method=method,
        splits=splits,
        progress=progress,
    )
