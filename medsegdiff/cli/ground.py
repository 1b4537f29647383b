"""``medsegdiff ground``: trains a grounding head with a data set's masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import refuse_missing, set_up
from medsegdiff.cli.options import (
    Axis,
    BundleKey,
    Caption,
    DataArgument,
    Debug,
    Device,
    Model,
    Quiet,
    Seed,
    Settings,
    Trust,
    Verbose,
    given,
    parse_words,
)


def ground(
    data: DataArgument,
    model: Model,
    output: Annotated[Path, typer.Option(help="File to write the head to, such as head.pt.")],
    without: Annotated[
        str, typer.Option(help="Labels whose masks are not used, separated by commas.")
    ] = "",
    template: Caption = None,
    steps: Annotated[
        int | None, BundleKey(), typer.Option(min=1, help="Number of training steps. Default: 400.")
    ] = None,
    fold: Annotated[int, typer.Option(min=0, help="Number of the held-out fold.")] = 0,
    axis: Axis = "axial",
    seed: Seed = None,
    device: Device = "auto",
    settings: Settings = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Trains a head that finds words in a text-to-image model's features, for 'medsegdiff prompt'.

    Example: medsegdiff ground data/abdomen --model stable-diffusion --output head.pt
    """
    set_up(quiet, verbose)
    changes = given(ground, locals())
    refuse_missing(data=data)
    from medsegdiff.prompting.taught_head import ground as run

    names = parse_words(without)
    run(data, model, output, fold=fold, without=names, axis=axis, device=device, **changes)
    typer.echo(output)
