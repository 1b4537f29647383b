"""``medsegdiff segment``: makes masks, means, variances and pictures of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.common import exit_with, set_up
from medsegdiff.cli.options import (
    BundleKey,
    BundleName,
    Calibration,
    Debug,
    Device,
    Formats,
    Members,
    Output,
    Overwrite,
    Quiet,
    SaveMembers,
    Seed,
    Settings,
    Steps,
    Trust,
    Verbose,
    given,
)
from medsegdiff.core.types import EngineName, Fusion, Locate, Uneven


def segment(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Image files (NIfTI, NRRD, DICOM, PNG, ...), folders or zips of such, "
            "a dataset.json, or https://.../studies/...",
        ),
    ],
    bundle: BundleName,
    output: Output,
    members: Members = None,
    steps: Steps = None,
    seed: Seed = None,
    fusion: Annotated[
        Fusion | None,
        BundleKey(),
        typer.Option(help="Rule that fuses members into a mask. Default: as in the bundle."),
    ] = None,
    device: Device = "auto",
    formats: Formats = None,
    save_members: SaveMembers = False,
    overwrite: Overwrite = False,
    calibration: Calibration = None,
    guarantee: Annotated[
        float | None,
        BundleKey(),
        typer.Option(help="Level, such as 0.95, of guaranteed masks and volumes to write."),
    ] = None,
    uneven: Annotated[
        Uneven | None,
        BundleKey(),
        typer.Option(help="Treatment of DICOM series with unevenly spaced slices."),
    ] = None,
    channels: Annotated[
        str | None,
        BundleKey("channel_series"),
        typer.Option(
            help="Words, separated by commas, that each select a DICOM series as a channel."
        ),
    ] = None,
    at: Annotated[
        str | None,
        BundleKey(),
        typer.Option(
            metavar="X,Y,Z", help="Place to segment in RAS+ mm, or a markups file of 3D Slicer."
        ),
    ] = None,
    roi: Annotated[
        str | None,
        BundleKey(),
        typer.Option(
            metavar="BOX_OR_MASK", help="Box to segment in RAS+ mm, a mask, or a markups file."
        ),
    ] = None,
    locate: Annotated[
        Locate | None,
        BundleKey(),
        typer.Option(help="Whether to search a whole scan for the places to segment."),
    ] = None,
    anyway: Annotated[
        bool,
        BundleKey(),
        typer.Option("--anyway", help="Segment a scan that the bundle was not made for."),
    ] = False,
    store: Annotated[
        bool,
        typer.Option("--store", help="Store the DICOM objects on the images' own server."),
    ] = False,
    store_to: Annotated[
        str | None, typer.Option(metavar="URL", help="Store them on this DICOMweb server.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="File (CSV) to write that says which image each case is.")
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            metavar="K|test|all",
            help="INPUT is then a data set: its cases that fold K holds out, of its test, or all.",
        ),
    ] = None,
    num_parts: Annotated[
        int | None, typer.Option(help="Number of processes that share the cases of one OUTPUT.")
    ] = None,
    part_id: Annotated[
        int | None, typer.Option(help="Number of this process, from 0: it does every N-th case.")
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="ray: the cases are shared out over a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of Ray workers. Default: one per core or GPU.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, or auto. Default: this machine alone.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each case as it ends.")
    ] = False,
    settings: Settings = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Segments images with an ensemble drawn from a bundle's model.

    Exits with 1 if a case failed; the other cases are written.

    Example: medsegdiff segment scan.nii.gz --bundle hippocampus_mr --output out
    """
    set_up(quiet, verbose)
    changes = given(segment, locals())
    from medsegdiff.cases.case_line import printed
    from medsegdiff.cases.job import segment as run
    from medsegdiff.cases.part import part

    target = store_to or ("origin" if store else None)
    if fold is not None:
        from medsegdiff.data.manifest import parse_fold

        changes["fold"] = parse_fold(fold)
    failures = run(
        inputs,
        bundle,
        output,
        device=device,
        store=target,
        key=key,
        part=part(part_id, num_parts),
        engine=engine,
        workers=workers,
        address=address,
        tell=printed(Path(output)) if as_json else None,
        **changes,
    )
    exit_with(failures, "" if quiet else f"written to {output}")
