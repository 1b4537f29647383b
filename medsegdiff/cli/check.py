"""``medsegdiff check``: is this data set fit to train on? what is in it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medsegdiff.cli.common import Debug, Quiet, Verbose, progress, set_up

if TYPE_CHECKING:
    from medsegdiff.data.fitness import Problem


def check(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A dataset.json, its folder, a known name, or NAME=FOLDER."
        ),
    ],
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the description, with all that was inferred."),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Says whether a data set is fit to train on, and what is in it.

    Exits with 1 if something has to be mended first.

    Example: medsegdiff check data/hippocampus
    """
    set_up(quiet, verbose)
    from medsegdiff.data.fitness import check as examine

    if write:
        from medsegdiff.data.written_description import write_description

        write_description(data, write)
    report = examine(data, progress("checking"))
    Console().print(_facts_table(report.facts))
    for problem in report.problems:
        typer.echo(_line(problem))
    errors = sum(problem.severity == "error" for problem in report.problems)
    warnings = len(report.problems) - errors
    verdict = "fit to train on" if report.fit else "not fit to train on"
    typer.echo(f"{report.facts['name']}: {verdict}; {errors} errors, {warnings} warnings")
    if not report.fit:
        raise typer.Exit(1)


def _facts_table(facts: dict[str, Any]) -> Table:
    table = Table(title="What is in it", show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(_in_words(value)))
    return table


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_in_words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_in_words(part) for part in value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.6g}"
    return str(value)


def _line(problem: Problem) -> str:
    """A problem as one line, which a terminal may wrap but nothing cuts."""
    severity = typer.style(problem.severity, "red" if problem.severity == "error" else "yellow")
    case = f"{problem.case}: " if problem.case else ""
    return f"{severity}: {case}{problem.rule}. {problem.remedy}"
