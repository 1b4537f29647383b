"""``medsegdiff adopt``: brings other programs' predictions to the files of segmented cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import exit_with, set_up
from medsegdiff.cli.options import (
    Debug,
    OtherClasses,
    OtherLayout,
    OtherModel,
    Output,
    Overwrite,
    Quiet,
    SaveMembers,
    Verbose,
    parse_formats,
)


def adopt(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREDICTIONS",
            help="Folder of nnU-Net, TotalSegmentator, or of maps; several are members.",
        ),
    ],
    output: Output,
    data: Annotated[
        str | None,
        typer.Option(help="Data set of the images: a dataset.json, its folder, or a known name."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, where there is no data set.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="The model's calibration, as medsegdiff calibrate wrote it."),
    ] = None,
    guarantee: Annotated[
        float | None,
        typer.Option(help="Level, such as 0.9, of guaranteed masks and volumes to write."),
    ] = None,
    classes: OtherClasses = None,
    model: OtherModel = None,
    layout: OtherLayout = "auto",
    formats: Annotated[
        str, typer.Option("--format", help="File formats to write, separated by commas.")
    ] = "nifti",
    save_members: SaveMembers = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Brings other programs' predictions to the files that segment writes.

    Exits with 1 if a case failed; the other cases are written.

    Example: medsegdiff adopt nnUNetTrainer__nnUNetPlans__3d_fullres --data hippocampus --output out
    """
    set_up(quiet, verbose)
    wanted = parse_formats(formats)
    from medsegdiff.other_models.adopt_predictions import adopt as run
    from medsegdiff.other_models.chosen_classes import parse_classes

    failures = run(
        predictions,
        output,
        data=data,
        images=images,
        calibration=calibration,
        guarantee=guarantee,
        classes=parse_classes(classes) if classes else None,
        model=model,
        layout=layout,
        formats=wanted,
        save_members=save_members,
        overwrite=overwrite,
    )
    exit_with(failures, "" if quiet else f"written to {output}")
