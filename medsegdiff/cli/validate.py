"""``medsegdiff validate``: the checks of MONAI's model zoo on a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medsegdiff.cli.common import set_up
from medsegdiff.cli.options import Debug, Quiet, Trust, Verbose

if TYPE_CHECKING:
    from medsegdiff.bundle.bundle_checks import CheckResult

COLOURS = {"passed": "green", "failed": "red", "not applicable": "yellow"}


def validate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Name or folder of a bundle.")],
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check metadata.json against this JSON schema."),
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Download the schema that metadata.json names.")
    ] = False,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Checks a bundle, ours or another's, as MONAI's model zoo does: one line a check.

    Exits with 1 if a check failed. Uses no network, unless --online asks for it. With -q, shows
    only what failed.

    Example: medsegdiff validate hippocampus_mr
    """
    set_up(quiet, verbose)
    from medsegdiff.bundle.bundle_checks import validate as check

    failed = 0
    for result in check(bundle, schema=schema, online=online):
        failed += result.outcome == "failed"
        if result.outcome == "failed" or not quiet:
            typer.echo(_line(result))
    if failed:
        raise typer.Exit(1)


def _line(result: CheckResult) -> str:
    outcome = typer.style(result.outcome, COLOURS[result.outcome])
    reason = f": {' '.join(result.reason.split())}" if result.reason else ""
    return f"{outcome}: {result.name}{reason}"
