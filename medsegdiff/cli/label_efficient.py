"""``medsegdiff label-efficient``: masks from a few labelled cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


def label_efficient(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or the name of one we ship.")
    ],
    output: Annotated[Path, typer.Option(help="Gets a folder for each case.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...", help="Images to mark. Else all cases that do not teach."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Whose labelled cases teach: a dataset.json, its folder, or a name."),
    ] = None,
    labelled: Annotated[
        int | None, typer.Option(min=1, help="How many teach. Else all outside the fold.")
    ] = None,
    cases: Annotated[
        str | None, typer.Option(help="Or the names of those that teach, with commas.")
    ] = None,
    fitted: Annotated[
        Path | None, typer.Option(help="Apply this few_labels.pt instead of learning.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Whose cases do not teach. Else as the bundle says.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The same seed gives the same masks. Else as the bundle says."),
    ] = None,
    formats: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = "nifti",
    save_members: Annotated[
        bool, typer.Option("--save-members", help="Write each member's mask, too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Learn and do cases again that are done.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Learns from a few labelled cases, on features of a model of images, and marks others.

    Cases with references are compared with them, in report/. Exits with 1 if some case failed.

    Example: medsegdiff label-efficient hippocampus_label_efficient --data hippocampus_mr
    --labelled 5 --output out
    """
    set_up(quiet, verbose)
    chosen = parse_formats(formats)
    from medsegdiff.bundle.bundle import load_bundle
    from medsegdiff.few_label.marker import label_efficient as run

    failures = run(
        load_bundle(bundle),
        output,
        inputs=inputs or (),
        data=data,
        labelled=labelled,
        cases=cases,
        fitted=fitted,
        fold=fold,
        seed=seed,
        formats=chosen,
        save_members=save_members,
        overwrite=overwrite,
        device=device,
    )
    exit_with(failures, "" if quiet else f"written to {output}")
