"""``medsegdiff diffumask``: draws a data set of pictures and masks from words."""

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
    Trust,
    Verbose,
    given,
    parse_words,
)


def diffumask(
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help="Words to draw, each in quotes.")
    ],
    model: Model,
    output: Annotated[Path, typer.Option(help="Folder of the new data set.")],
    count: Annotated[int, typer.Option(min=1, help="Number of pairs to keep.")] = 20,
    template: Annotated[
        str | None,
        BundleKey("finding#template"),
        typer.Option("--caption", help="Text around the words, with {} in their place."),
    ] = None,
    attributes: Annotated[
        str, typer.Option(help="Words, separated by commas; one or none is put before a thing.")
    ] = "",
    most: Annotated[int, typer.Option(min=1, help="Greatest number of things in a picture.")] = 3,
    steps: Annotated[
        int | None,
        BundleKey("drawing#steps"),
        typer.Option(min=1, help="Number of drawing steps. Default: 30."),
    ] = None,
    guidance: Annotated[
        float | None,
        BundleKey("drawing#guidance"),
        typer.Option(help="Weight of guidance by the caption; 1: none. Default: 3."),
    ] = None,
    guidance_kind: Annotated[
        str | None,
        BundleKey("drawing#kind"),
        typer.Option(help="Kind of guidance: classifier-free (default) or segmentation-free."),
    ] = None,
    excite: Annotated[
        float | None,
        BundleKey("drawing#excite"),
        typer.Option(
            min=0.0, help="Step towards the most neglected word, such as 0.1. Default: none."
        ),
    ] = None,
    agreement: Annotated[
        float | None,
        BundleKey(),
        typer.Option(
            help="Least overlap of a mask with its attention while drawing. Default: 0.3."
        ),
    ] = None,
    attended: Annotated[
        float | None,
        BundleKey("finding#attended"),
        typer.Option(help="Least attention to a word that is present; 0: no such test."),
    ] = None,
    only_named: Annotated[
        bool,
        BundleKey(),
        typer.Option("--only-named", help="Leave out pictures that also show other words."),
    ] = False,
    fill_holes: Annotated[
        bool,
        BundleKey(),
        typer.Option("--fill-holes", help="Fill the holes in a thing's mask."),
    ] = False,
    seed: Seed = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier drawn data set.")
    ] = False,
    device: Device = "auto",
    settings: Settings = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Draws pictures from words, with masks of the words, by a text-to-image model's attention.

    Exits with 1 if too few pairs pass the checks; those that pass are written.

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
