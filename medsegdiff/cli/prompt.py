"""``medsegdiff prompt``: words in; masks, means and variances out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medsegdiff.cli.common import (
    FORMATS_HELP,
    Debug,
    Device,
    Quiet,
    Verbose,
    exit_with,
    parse_formats,
    set_up,
)
from medsegdiff.core.errors import UsageError


def prompt(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file, folder or zip.")],
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help="What to find, each in quotes.")
    ],
    model: Annotated[
        str, typer.Option(help="A saved diffusers pipeline: folder, bundle, or name on the hub.")
    ],
    output: Annotated[Path, typer.Option(help="Gets a folder for each case.")],
    template: Annotated[
        str | None, typer.Option("--caption", help="The text around the words, which stand at {}.")
    ] = None,
    grounding: Annotated[
        Path | None, typer.Option(help="A head taught by 'medsegdiff ground', to look with.")
    ] = None,
    axis: Annotated[
        Literal["axial", "coronal", "sagittal"], typer.Option(help="Plane of a volume's slices.")
    ] = "axial",
    draws: Annotated[int | None, typer.Option(help="Of noise; each is a member.")] = None,
    levels: Annotated[
        str | None, typer.Option(help="Of noise, as shares of the forward process, with commas.")
    ] = None,
    evidence: Annotated[
        Literal["attention", "difference", "both"] | None,
        typer.Option(help="For where a word is: attention to it, what leaving it out changes."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Part of the names of the attention layers that count.")
    ] = None,
    background: Annotated[
        float | None, typer.Option(help="Share of a map's range that a place has to reach.")
    ] = None,
    propagation: Annotated[
        int | None, typer.Option(min=0, help="How often maps spread along self-attention.")
    ] = None,
    radius: Annotated[
        int | None, typer.Option(min=0, help="Of guided filtering, in the model's pixels; 0: none.")
    ] = None,
    crf: Annotated[
        float | None,
        typer.Option(min=0.0, help="Weight of a conditional random field, such as 8; 0: none."),
    ] = None,
    attended: Annotated[
        float | None,
        typer.Option(help="Least attention that a word has to draw to be there; 0: none."),
    ] = None,
    presence: Annotated[
        float | None,
        typer.Option(help="Standard errors by which a word has to help to be there; -1: none."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same masks.")
    ] = None,
    device: Device = "auto",
    formats: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = "nifti",
    save_members: Annotated[
        bool, typer.Option("--save-members", help="Write each draw's mask, too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Do cases again that are done.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Finds words in an image by a text-to-image diffusion model's attention.

    Exits with 1 if some case failed; the others are written all the same. What is not asked for is
    as the model's bundle recommends, or as is usual.

    Example: medsegdiff prompt scan.nii.gz "liver" "left kidney" --model text_model
    --output out
    """
    set_up(quiet, verbose)
    chosen = parse_formats(formats)
    from medsegdiff.prompting.prompted_data import prompt as run
    from medsegdiff.prompting.prompted_data import suited_options

    options = suited_options(
        model,
        template=template,
        evidence=evidence,
        layers=layers,
        levels=None if levels is None else _numbers(levels),
        draws=draws,
        background=background,
        propagation=propagation,
        radius=radius,
        crf=crf,
        attended=attended,
        presence=presence,
        seed=seed,
    )
    failures = run(
        [image],
        words,
        model,
        output,
        options,
        grounding=grounding,
        axis=axis,
        device=device,
        formats=chosen,
        save_members=save_members,
        overwrite=overwrite,
    )
    exit_with(failures, "" if quiet else f"written to {output}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        rule = f"must be numbers with commas, not {text!r}"
        raise UsageError("--levels", rule, "Give for instance 0.1,0.3") from error
