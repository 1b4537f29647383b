"""The program ``medsegdiff``."""

from __future__ import annotations

from typing import Annotated

import typer

from medsegdiff import __version__
from medsegdiff.cli.adopt import adopt
from medsegdiff.cli.bundles import bundles
from medsegdiff.cli.calibrate import calibrate
from medsegdiff.cli.check import check
from medsegdiff.cli.common import Command, Commands
from medsegdiff.cli.convert import convert
from medsegdiff.cli.counterfactual import counterfactual
from medsegdiff.cli.demo import demo
from medsegdiff.cli.diffumask import diffumask
from medsegdiff.cli.evaluate import evaluate
from medsegdiff.cli.export import export
from medsegdiff.cli.fit_study import fit
from medsegdiff.cli.ground import ground
from medsegdiff.cli.label_efficient import label_efficient
from medsegdiff.cli.plan import plan
from medsegdiff.cli.prompt import prompt
from medsegdiff.cli.segment import segment
from medsegdiff.cli.startup import hide_unneeded, sleep_while_waiting
from medsegdiff.cli.synthesize import synthesize
from medsegdiff.cli.train import train
from medsegdiff.cli.validate import validate

app = typer.Typer(
    name="medsegdiff",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(check, convert, fit, plan, train, segment, adopt, calibrate, evaluate),
    *(label_efficient, synthesize, counterfactual, prompt, ground, diffumask),
    *(bundles, validate, export, demo),
):
    app.command(cls=Command)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def medsegdiff(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Diffusion ensembles for medical images: a mask, its variance, and a report."""


def main() -> None:
    """Entry point of the command line."""
    hide_unneeded()
    sleep_while_waiting()
    app()
