"""``medsegdiff plan``: a bundle made for a data set, each decision with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medsegdiff.cli.common import progress, set_up
from medsegdiff.cli.options import DataArgument, Debug, Device, Quiet, Verbose


def plan(
    data: DataArgument,
    output: Annotated[Path, typer.Option(help="Folder of the bundle, which is named after it.")],
    hours: Annotated[float, typer.Option(help="Hours of training of one network.")] = 1.0,
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="Greatest memory of a training step.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Plans a bundle for a data set: network, patches, augmentation, epochs, and the reasons.

    Example: medsegdiff plan data/hearts --output hearts --hours 2
    """
    set_up(quiet, verbose)
    from medsegdiff.data.manifest import load_manifest

    load_manifest(data)  # refused before anything heavy is imported
    from medsegdiff.core.atomic_files import read_json
    from medsegdiff.planning.plan_bundle import plan as run

    bundle = run(data, output, hours=hours, memory=memory, device=device, progress=progress)
    if quiet:
        return
    reasons = read_json(bundle.root / "plan.json")["plan"]["reasons"]
    table = Table("decision", "reason", title=f"Plan of {bundle.name}", title_justify="left")
    for name, reason in reasons.items():
        table.add_row(name.replace("_", " "), Text(reason))
    Console().print(table)
    typer.echo(f"next: medsegdiff train {output} --data {data} --output runs/{bundle.name}")
