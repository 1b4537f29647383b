"""``medsegdiff export``: a bundle's networks as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medsegdiff.cli.common import refuse_missing, set_up
from medsegdiff.cli.options import Debug, Quiet, Trust, Verbose
from medsegdiff.core.errors import UsageError


def export(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Name or folder of a bundle.")],
    output: Annotated[Path, typer.Option(help="Folder of the files.")],
    form: Annotated[
        Literal["onnx", "torch"], typer.Option("--format", help="Format of the networks.")
    ] = "onnx",
    size: Annotated[
        str | None,
        typer.Option(metavar="X,Y,Z", help="Size of the images in voxels. Default: the window."),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Image to compare on, beside random input.")
    ] = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Exports the networks of a bundle, and the numbers that an ensemble is sampled with.

    Each file is compared with its network before it is kept.

    Example: medsegdiff export hippocampus_mr --output exported --size 40,56,40
    """
    set_up(quiet, verbose)
    refuse_missing(bundle=bundle, config="inference")
    wanted = None if size is None else _size(size)
    from medsegdiff.exporting.export_bundle import export as run

    content = run(bundle, output, form=form, size=wanted, image=image)
    if quiet:
        return
    for names, checked in zip(content["networks"], content["checked"], strict=True):
        for part, file in names.items():
            told = ", ".join(f"{value:.1g} on {key} input" for key, value in checked[part].items())
            typer.echo(f"{output / file}: differs from the network by {told}")
    typer.echo(f"{output / 'ensemble.json'}: how to sample")


def _size(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        rule = "must be whole numbers with commas"
        raise UsageError(f"--size {text}", rule, "Give for instance 40,56,40") from error
