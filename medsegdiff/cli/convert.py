"""``medsegdiff convert``: converts a public data set to NIfTI or PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import exit_with, progress, set_up
from medsegdiff.cli.options import Debug, Quiet, Verbose


def convert(
    data: Annotated[
        str,
        typer.Argument(
            metavar="SET=FOLDER", help="Name of the set, lidc_idri or ddti, and its folder."
        ),
    ],
    output: Annotated[Path, typer.Option(help="New folder for dataset.json and its files.")],
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Converts a public data set whose files cannot be read in place.

    Example: medsegdiff convert lidc_idri=/data/LIDC-IDRI --output data/lidc_idri
    """
    set_up(quiet, verbose)
    from medsegdiff.data.public.conversion import convert as run

    failures = run(data, output, progress("converting"))
    exit_with(failures, f"written: {output}")
