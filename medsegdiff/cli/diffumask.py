"""``medsegdiff diffumask``: a data set of pictures and masks, drawn from words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import set_up
from medsegdiff.cli.options import (
    BundleKey,
    Debug,
    Device,
    Model,
    Quiet,
    Seed,
    Settings,
    Verbose,
    given,
    parse_words,
)


def diffumask(
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help="What is drawn, each in quotes.")
    ],
    model: Model,
    output: Annotated[Path, typer.Option(help="Folder of the new data set.")],
    count: Annotated[int, typer.Option(min=1, help="Pairs wanted.")] = 20,
    template: Annotated[
        str | None,
        BundleKey("finding#template"),
        typer.Option("--caption", help="The text around the words, which stand at {}."),
    ] = None,
    attributes: Annotated[
        str, typer.Option(help="Words of which one, or none, is put before a thing, by comma.")
    ] = "",
    most: Annotated[int, typer.Option(min=1, help="Things of a picture, at most.")] = 3,
    steps: Annotated[
        int | None, BundleKey("drawing#steps"), typer.Option(min=1, help="Of drawing. Else 30.")
    ] = None,
    guidance: Annotated[
        float | None,
        BundleKey("drawing#guidance"),
        typer.Option(help="Towards the caption; 1: none. Else 3."),
    ] = None,
    guidance_kind: Annotated[
        str | None,
        BundleKey("drawing#kind"),
        typer.Option(help="classifier-free, as usual, or segmentation-free."),
    ] = None,
    excite: Annotated[
        float | None,
        BundleKey("drawing#excite"),
        typer.Option(min=0.0, help="Step towards the most neglected word, such as 0.1. Else none."),
    ] = None,
    agreement: Annotated[
        float | None,
        BundleKey(),
        typer.Option(help="Least overlap of a mask with its attention while drawing. Else 0.3."),
    ] = None,
    attended: Annotated[
        float | None,
        BundleKey("finding#attended"),
        typer.Option(help="Least attention that a word has to draw to be there; 0: none."),
    ] = None,
    only_named: Annotated[
        bool,
        BundleKey(),
        typer.Option("--only-named", help="Leave out pictures that hold other words, too."),
    ] = False,
    fill_holes: Annotated[
        bool,
        BundleKey(),
        typer.Option("--fill-holes", help="Holes in a thing's mask are part of it."),
    ] = False,
    seed: Seed = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a data set drawn before.")
    ] = False,
    device: Device = "auto",
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Draws pictures from words, with masks of each, by a text-to-image model's attention.

    Exits with 1 if too few pairs were fit; those that were are written all the same.

    Example: medsegdiff diffumask "liver" "kidney" --model text_model --output drawn
    """
    set_up(quiet, verbose)
    changes = given(diffumask, locals())
    from medsegdiff.prompting.drawn_data import diffumask as run

    path = run(
        words,
        model,
        output,
        count,
        attributes=parse_words(attributes),
        most=most,
        device=device,
        overwrite=overwrite,
        **changes,
    )
    typer.echo(path)
