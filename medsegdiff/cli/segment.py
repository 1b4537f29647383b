"""``medsegdiff segment``: images in; masks, means, variances and pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from medsegdiff.core.types import CalibrationUse, Fusion, Uneven


def segment(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Image files (NIfTI, NRRD, DICOM, PNG, ...), folders or zips of such, "
            "a dataset.json, or https://.../studies/...",
        ),
    ],
    bundle: Annotated[str, typer.Option(help="A bundle's folder, or the name of one we ship.")],
    output: Annotated[Path, typer.Option(help="Gets a folder for each case.")],
    members: Annotated[
        int | None, typer.Option(min=1, help="Masks drawn for each case. Else as the bundle says.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps. Else as the bundle says.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The same seed gives the same masks. Else as the bundle says."),
    ] = None,
    fusion: Annotated[
        Fusion | None, typer.Option(help="How members become one mask. Else as the bundle says.")
    ] = None,
    device: Device = "auto",
    formats: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = "nifti",
    save_members: Annotated[
        bool, typer.Option("--save-members", help="Write each member's mask, too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Do cases again that are done.")
    ] = False,
    calibration: Annotated[
        CalibrationUse | None,
        typer.Option(help="Whether the bundle's calibration is applied. Else as the bundle says."),
    ] = None,
    guarantee: Annotated[
        float | None,
        typer.Option(help="Write masks and volumes that hold at this level, such as 0.95."),
    ] = None,
    uneven: Annotated[
        Uneven | None,
        typer.Option(help="DICOM slices that are unevenly spaced: refuse, or resample them."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Words for the DICOM series of a study that are a case's channels."),
    ] = None,
    store: Annotated[
        bool,
        typer.Option("--store", help="Store DICOM SEG on the server that the images came from."),
    ] = False,
    store_to: Annotated[
        str | None, typer.Option(metavar="URL", help="Store DICOM SEG on this DICOMweb server.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Write which image each case is to this file (CSV).")
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            metavar="K|test|all",
            help="INPUT is then a data set: its cases that fold K holds out, of its test, or all.",
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Segments images with an ensemble drawn from a bundle's model.

    Exits with 1 if some case failed; the others are written all the same.

    Example: medsegdiff segment scan.nii.gz --bundle hippocampus_mr --output out
    """
    set_up(quiet, verbose)
    chosen = parse_formats(formats)
    from medsegdiff.bundle.bundle import load_bundle
    from medsegdiff.cases.segmenter import segment as run
    from medsegdiff.data.manifest import parse_fold

    failures = run(
        inputs,
        load_bundle(bundle),
        output,
        members=members,
        steps=steps,
        seed=seed,
        fusion=fusion,
        device=device,
        formats=chosen,
        save_members=save_members,
        overwrite=overwrite,
        calibration=calibration,
        guarantee=guarantee,
        uneven=uneven,
        channels=channels,
        store=store_to or ("origin" if store else None),
        key=key,
        fold=None if fold is None else parse_fold(fold),
    )
    exit_with(failures, "" if quiet else f"written to {output}")
