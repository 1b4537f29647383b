"""``medsegdiff label-efficient``: learns from a few labelled cases, and segments others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import exit_with, refuse_missing, set_up
from medsegdiff.cli.options import (
    BundleArgument,
    BundleKey,
    Debug,
    Device,
    Formats,
    HeldOut,
    Output,
    Overwrite,
    Quiet,
    SaveMembers,
    Seed,
    Settings,
    Trust,
    Verbose,
    given,
)


def label_efficient(
    bundle: BundleArgument,
    output: Output,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...", help="Images to segment. Default: all cases not learned from."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Data with labelled cases: a dataset.json, its folder, or a name."),
    ] = None,
    labelled: Annotated[
        int | None,
        BundleKey(),
        typer.Option(min=1, help="Number of cases to learn from. Default: all outside the fold."),
    ] = None,
    cases: Annotated[
        str | None,
        BundleKey(),
        typer.Option(help="Names of the cases to learn from, separated by commas."),
    ] = None,
    fitted: Annotated[
        Path | None,
        BundleKey(read=str),
        typer.Option(help="File few_labels.pt to apply instead of learning."),
    ] = None,
    fold: HeldOut = None,
    seed: Seed = None,
    formats: Formats = None,
    save_members: SaveMembers = False,
    overwrite: Overwrite = False,
    settings: Settings = None,
    device: Device = "auto",
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Learns from a few labelled cases, with features of an image diffusion model; segments others.

    Cases with references are evaluated in report/. Exits with 1 if a case failed.

    Example: medsegdiff label-efficient hippocampus_label_efficient --data hippocampus_mr
    --labelled 5 --output out
    """
    set_up(quiet, verbose)
    changes = given(label_efficient, locals())
    refuse_missing(bundle, "label_efficient", data)
    from medsegdiff.few_label.marker import label_efficient as run

    failures = run(bundle, output, inputs=inputs or (), data=data, device=device, **changes)
    exit_with(failures, "" if quiet else f"written to {output}")
