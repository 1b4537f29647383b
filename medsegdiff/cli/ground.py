"""``medsegdiff ground``: teach a grounding head with a data set's masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medsegdiff.cli.common import Debug, Device, Quiet, Verbose, set_up


def ground(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A dataset.json, its folder, or a name.")
    ],
    model: Annotated[
        str, typer.Option(help="A saved diffusers pipeline: folder, bundle, or name on the hub.")
    ],
    output: Annotated[Path, typer.Option(help="File of the head, such as head.pt.")],
    without: Annotated[str, typer.Option(help="Labels whose masks are not shown, by comma.")] = "",
    template: Annotated[
        str | None, typer.Option("--caption", help="The text around the words, which stand at {}.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of teaching.")] = 400,
    fold: Annotated[int, typer.Option(min=0, help="Held out.")] = 0,
    axis: Annotated[
        Literal["axial", "coronal", "sagittal"], typer.Option(help="Plane of a volume's slices.")
    ] = "axial",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same head.")] = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Teaches a head to find words in a text-to-image model's features, for 'medsegdiff prompt'.

    Example: medsegdiff ground data/abdomen --model stable-diffusion --output head.pt
    """
    set_up(quiet, verbose)
    from medsegdiff.prompting.grounded import TeachingOptions
    from medsegdiff.prompting.prompted_data import suited_options
    from medsegdiff.prompting.taught_head import ground as run

    suited = suited_options(model, template=template)
    options = TeachingOptions(
        steps=steps, template=suited.template, layers=suited.layers, seed=seed
    )
    names = [name.strip() for name in without.split(",") if name.strip()]
    path = run(data, model, output, options, fold=fold, without=names, axis=axis, device=device)
    typer.echo(path)
