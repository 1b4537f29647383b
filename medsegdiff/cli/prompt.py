"""``medsegdiff prompt``: finds words in images, as masks, means and variances."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medsegdiff.cli.common import exit_with, set_up
from medsegdiff.cli.options import (
    Attended,
    Axis,
    BundleKey,
    Caption,
    Debug,
    Device,
    Formats,
    Model,
    Output,
    Overwrite,
    Quiet,
    SaveMembers,
    Seed,
    Settings,
    Trust,
    Verbose,
    given,
    parse_levels,
)


def prompt(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file, folder or zip.")],
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help="Words to find, each in quotes.")
    ],
    model: Model,
    output: Output,
    template: Caption = None,
    grounding: Annotated[
        Path | None,
        typer.Option(help="File of a head from 'medsegdiff ground' to find words with."),
    ] = None,
    axis: Axis = "axial",
    draws: Annotated[
        int | None, BundleKey(), typer.Option(help="Number of draws of noise; each is a member.")
    ] = None,
    levels: Annotated[
        str | None,
        BundleKey(read=parse_levels),
        typer.Option(
            help="Levels of noise, as shares of the forward process, separated by commas."
        ),
    ] = None,
    evidence: Annotated[
        Literal["attention", "difference", "both"] | None,
        BundleKey(),
        typer.Option(
            help="Evidence for a word's place: attention to it, change without it, or both."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        BundleKey(),
        typer.Option(help="Part of the names of the attention layers to use."),
    ] = None,
    background: Annotated[
        float | None,
        BundleKey(),
        typer.Option(help="Share of a map's range that a place must reach."),
    ] = None,
    propagation: Annotated[
        int | None,
        BundleKey(),
        typer.Option(min=0, help="Number of times that maps are spread along self-attention."),
    ] = None,
    radius: Annotated[
        int | None,
        BundleKey(),
        typer.Option(min=0, help="Radius of guided filtering, in the model's pixels; 0: none."),
    ] = None,
    crf: Annotated[
        float | None,
        BundleKey(),
        typer.Option(min=0.0, help="Weight of a conditional random field, such as 8; 0: none."),
    ] = None,
    attended: Attended = None,
    presence: Annotated[
        float | None,
        BundleKey(),
        typer.Option(help="Standard errors by which a present word helps; -1: no such test."),
    ] = None,
    seed: Seed = None,
    device: Device = "auto",
    formats: Formats = None,
    save_members: SaveMembers = False,
    overwrite: Overwrite = False,
    settings: Settings = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Finds words in an image by a text-to-image diffusion model's attention.

    Exits with 1 if a case failed; the other cases are written. Options that are not given are as
    the model's bundle recommends, or else have their defaults.

    Example: medsegdiff prompt scan.nii.gz "liver" "left kidney" --model text_model
    --output out
    """
    set_up(quiet, verbose)
    changes = given(prompt, locals())
    from medsegdiff.prompting.prompted_data import prompt as run

    failures = run(
        [image], words, model, output, grounding=grounding, axis=axis, device=device, **changes
    )
    exit_with(failures, "" if quiet else f"written to {output}")
