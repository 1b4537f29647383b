"""``medsegdiff check``: checks whether a data set is fit for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medsegdiff.cli.common import progress, refuse_missing, set_up
from medsegdiff.cli.options import DataArgument, Debug, Quiet, Verbose

if TYPE_CHECKING:
    from medsegdiff.data.fitness import Problem


def check(
    data: DataArgument,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the description, with all that was inferred."),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Checks whether a data set is fit for training, and describes its content.

    Exits with 1 if there is an error; warnings do not count.

    Example: medsegdiff check data/hippocampus
    """
    set_up(quiet, verbose)
    refuse_missing(data=data)
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
    """A problem as one line, which a terminal may wrap but which is never cut."""
    severity = typer.style(problem.severity, "red" if problem.severity == "error" else "yellow")
    case = f"{problem.case}: " if problem.case else ""
    return f"{severity}: {case}{problem.rule}. {problem.remedy}"
