"""``medsegdiff fit``: from a data set to calibrated networks and a report."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from medsegdiff.cli.common import parse_overrides, progress, refuse_missing, set_up
from medsegdiff.cli.options import DataArgument, Debug, Device, Quiet, Settings, Trust, Verbose
from medsegdiff.core.errors import UsageError

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


def fit(
    data: DataArgument,
    output: Annotated[Path, typer.Option(help="Folder of the study; later the BUNDLE to use.")],
    folds: Annotated[
        int | None, typer.Option(min=2, help="Number of folds. Default: as in the data set, or 5.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Number of the only fold to train. Default: all.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Hours of all trainings. Default: one for each.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle to train. Default: one planned for the data.")
    ] = None,
    device: Device = "auto",
    settings: Settings = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Plans, trains all folds, calibrates and reports: from a data set to a bundle to use.

    The same command again goes on after an interruption.

    Example: medsegdiff fit data/hearts --output hearts --hours 10
    """
    set_up(quiet, verbose)
    changes = parse_overrides(settings or [])
    if folds is not None and fold is not None:
        raise UsageError("--fold", "cannot be given with --folds", "Leave one of them out")
    refuse_missing(bundle, "train", data)
    from medsegdiff.core.atomic_files import read_json
    from medsegdiff.study.run_study import fit as run

    with _safe_to_stop(output):
        run(
            data,
            output,
            folds=folds,
            fold=fold,
            hours=hours,
            bundle=bundle,
            device=device,
            overrides=changes,
            progress=progress,
        )
    if not quiet:
        dice = read_json(output / "report.json")["summary"]["dice"]["mean"]
        typer.echo(f"mean Dice of the held-out cases {dice:.3f}; see {output / 'report.html'}")
        typer.echo(f"next: medsegdiff segment INPUT --bundle {output} --output OUT")


@contextmanager
def _safe_to_stop(output: Path) -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM end the command with a line that says how to go on."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"medsegdiff: stopped. {output} is safe: the same command goes on", err=True)
        raise typer.Exit(STOPPED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
