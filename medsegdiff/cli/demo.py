"""``medsegdiff demo``: a demonstration on a real volume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import set_up
from medsegdiff.cli.options import Debug, Quiet, Verbose


def demo(
    output: Annotated[
        Path, typer.Option(help="Output folder, with a folder for each case.")
    ] = Path("demo"),
    members: Annotated[int, typer.Option(min=1, help="Number of masks drawn for each case.")] = 16,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Segments both hippocampi of a real MR volume and prints the paths of the pictures.

    Example: medsegdiff demo --output demo
    """
    set_up(quiet, verbose)
    from medsegdiff.cases.demonstration import demo as run

    for picture in run(output, members=members):
        typer.echo(picture)
