"""``medsegdiff diffumask``: a data set of pictures and masks, drawn from words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import Debug, Device, Quiet, Verbose, set_up


def diffumask(
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help="What is drawn, each in quotes.")
    ],
    model: Annotated[
        str, typer.Option(help="A saved diffusers pipeline: folder, bundle, or name on the hub.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the new data set.")],
    count: Annotated[int, typer.Option(min=1, help="Pairs wanted.")] = 20,
    template: Annotated[
        str | None, typer.Option("--caption", help="The text around the words, which stand at {}.")
    ] = None,
    attributes: Annotated[
        str, typer.Option(help="Words of which one, or none, is put before a thing, by comma.")
    ] = "",
    most: Annotated[int, typer.Option(min=1, help="Things of a picture, at most.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of drawing.")] = 30,
    guidance: Annotated[float, typer.Option(help="Towards the caption; 1: none.")] = 3.0,
    guidance_kind: Annotated[
        str, typer.Option(help="classifier-free, or segmentation-free.")
    ] = "classifier-free",
    excite: Annotated[
        float,
        typer.Option(min=0.0, help="Step towards the most neglected word, such as 0.1; 0: none."),
    ] = 0.0,
    agreement: Annotated[
        float, typer.Option(help="Least overlap of a mask with its attention while drawing.")
    ] = 0.3,
    attended: Annotated[
        float | None,
        typer.Option(help="Least attention that a word has to draw to be there; 0: none."),
    ] = None,
    only_named: Annotated[
        bool, typer.Option("--only-named", help="Leave out pictures that hold other words, too.")
    ] = False,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes", help="Holes in a thing's mask are part of it.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pairs.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a data set drawn before.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Draws pictures from words, with masks of each, by a text-to-image model's attention.

    Exits with 1 if too few pairs were fit; those that were are written all the same.

    Example: medsegdiff diffumask "liver" "kidney" --model text_model --output drawn
    """
    set_up(quiet, verbose)
    from medsegdiff.prompting.drawing import DrawOptions
    from medsegdiff.prompting.drawn_data import diffumask as run
    from medsegdiff.prompting.pairs import PairOptions
    from medsegdiff.prompting.prompted_data import suited_options

    finding = suited_options(model, template=template, attended=attended)
    drawing = DrawOptions(
        steps=steps,
        guidance=guidance,
        kind=guidance_kind,  # type: ignore[arg-type]
        layers=finding.layers,
        coarsest=finding.coarsest,
        propagation=finding.propagation,
        excite=excite,
    )
    options = PairOptions(
        drawing=drawing,
        finding=finding,
        agreement=agreement,
        only_named=only_named,
        fill_holes=fill_holes,
        seed=seed,
    )
    chosen = [word.strip() for word in attributes.split(",") if word.strip()]
    path = run(
        words,
        model,
        output,
        count,
        options,
        attributes=chosen,
        most=most,
        device=device,
        overwrite=overwrite,
    )
    typer.echo(path)
