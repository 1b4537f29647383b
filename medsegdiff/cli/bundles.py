"""``medsegdiff bundles``: lists the available models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medsegdiff.cli.common import set_up
from medsegdiff.cli.options import Debug, Quiet, Verbose
from medsegdiff.core.errors import InputError

if TYPE_CHECKING:
    from medsegdiff.bundle.bundle import Bundle


def bundles(quiet: Quiet = False, verbose: Verbose = False, debug: Debug = False) -> None:
    """Lists the available bundles: task, labels, input, size, published figures.

    Example: medsegdiff bundles
    """
    set_up(quiet, verbose)
    from medsegdiff.bundle.bundle import list_bundles

    for bundle in list_bundles():
        if quiet:
            typer.echo(bundle.name)
            continue
        table = Table(
            title=f"{bundle.name} {bundle.metadata.get('version', '')}",
            title_justify="left",
            show_header=False,
        )
        for what, said in _described(bundle):
            table.add_row(what, Text(said))
        Console().print(table)


def _described(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """The description of a bundle, as pairs of heading and text."""
    metadata = bundle.metadata
    image = metadata["network_data_format"]["inputs"]["image"]
    yield "task", str(metadata.get("task", ""))
    yield "labels", ", ".join(name for value, name in sorted(bundle.labels.items()) if value)
    channels = ", ".join(str(name) for name in image["channel_def"].values())
    yield "input", f"{len(image['spatial_shape'])}D, {channels}"
    yield "made for", ", ".join(bundle.configs)
    yield "size", _size(bundle)
    yield "figures", _figures(metadata.get("eval_metrics", {}))
    yield "use", str(metadata.get("intended_use", ""))


def _size(bundle: Bundle) -> str:
    try:
        size = sum(file.stat().st_size for file in bundle.weight_files())
        return f"{size / 1e6:.1f} MB of weights"
    except InputError:
        return "no weights: train it first"


def _figures(metrics: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in metrics.items()) or "none published"
