"""Is anything lost when ``segment`` is killed? Kills it at random moments, and calls it again.

python -m benchmarks.reliability.inference_kills --kills 100
"""

from __future__ import annotations

import argparse
import filecmp
import itertools
import json
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk

from benchmarks.reliability.killing import Tally, ended, forked, killed_until_it_ends
from medsegdiff.cases import segment
from medsegdiff.core import read_json, write_json
from medsegdiff.phantoms import write_dicom_series

BUNDLE = "hippocampus_mr"
RESULTS = Path("benchmarks/results/reliability.json")
SETTINGS: dict[str, Any] = {
    "members": 2,
    "inferer#window": [24, 24, 24],
    "save_members": True,
}
"""Of a tiny image: most of the time is writing."""
FORMATS = {
    "dicom": ["nifti", "nrrd", "dicom-seg", "secondary-capture"],
    "nrrd": ["nrrd"],
    "nifti": ["nifti", "nrrd"],
}
"""Kind of the study -> all formats that can be written of it, or some; runs take them in turn."""
CASES = 3
SHAPE = (22, 24, 7)
"""Columns, rows and slices of a case: few files, since the time of a kill is one of many."""
SALT = ".salt"
"""File in the output folder that names of DICOM cases follow from."""
VARYING = {"seconds", "peak_memory_mb"}
"""Keys of a case's record that no two runs share."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, go on, compare, and write the figures into the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="at least")
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for tally in kill_segmentations(Path(folder), options.kills, options.minutes, options.seed):
            figures = {
                "inference_kills": tally.kills,
                "inference_lost": tally.lost,
                "inference_runs": tally.runs,
                "inference_equal": tally.equal,
            }
            print(json.dumps(figures), flush=True)
            write_json(options.output, {**(read_json(options.output) or {}), **figures})


def kill_segmentations(folder: Path, kills: int, minutes: float, seed: int) -> Iterator[Tally]:
    """Kill and repeat calls until there are enough kills, or the time is over.

    Args:
        folder: Folder for images and outputs.
        kills: Number of kills after which no further run begins.
        minutes: Number of minutes after which no further run begins.
        seed: Seed of the moments.

    Yields:
        The counts so far, after each run.
    """
    started, moments, tally = time.monotonic(), random.Random(seed), Tally()
    took: dict[str, float] = {}
    for kind in itertools.cycle(FORMATS):
        if tally.kills >= kills or time.monotonic() - started > 60 * minutes:
            return
        study, whole = folder / kind, folder / f"whole_{kind}"
        if kind not in took:
            took[kind] = seconds_of(kind, study, whole)
        before, began = tally.kills, time.monotonic()
        kill_one(kind, study, whole, took[kind], moments, tally)
        if tally.kills == before:  # a machine that has less to do than before
            took[kind] = time.monotonic() - began
        yield tally


def kill_one(
    kind: str, study: Path, whole: Path, took: float, moments: random.Random, tally: Tally
) -> None:
    """Kill and repeat one call until it ends, and compare.

    Args:
        kind: Kind of the study.
        study: Folder of the images.
        whole: Output of a call that nothing killed.
        took: Seconds that it took.
        moments: Source of the times of kills.
        tally: Counts, which grow.
    """
    out, before = whole.with_name("out"), tally.kills
    out.mkdir()
    if kind == "dicom":  # the same names
        shutil.copy(whole / SALT, out / SALT)
    killed_until_it_ends(
        lambda: segment_once(kind, study, out),
        took,
        moments,
        tally,
        lambda: len(list(out.glob("*/*_run.json"))),
        lambda: damaged_files(out, whole) == [],
    )
    if tally.kills > before:  # else it ended before its moment came
        differ = damaged_files(out, whole) + missing_or_left(out, whole)
        tally.runs += 1
        tally.equal += not differ
        for name in differ:
            print(f"{kind} differs: {name}")
    shutil.rmtree(out)


def seconds_of(kind: str, study: Path, whole: Path) -> float:
    """Write a study, segment it, and time that when all is imported that children need."""
    write_study(kind, study)
    segment_once(kind, study, whole)
    started = time.monotonic()
    ended(forked(lambda: segment_once(kind, study, whole.with_name(f"timed_{kind}"))))
    return time.monotonic() - started


def write_study(kind: str, folder: Path) -> None:
    """Write ``CASES`` small images: DICOM series, or files."""
    for number in range(1, CASES + 1):
        values = np.random.default_rng(number).integers(0, 900, SHAPE).astype(np.uint16)
        if kind == "dicom":
            affine = np.diag([-1.0, -1.0, 1.0, 1.0])
            write_dicom_series(values, affine, folder / str(number), number=number)
            continue
        folder.mkdir(exist_ok=True)
        ending = {"nifti": ".nii.gz", "nrrd": ".nrrd"}[kind]
        sitk.WriteImage(sitk.GetImageFromArray(values.T), str(folder / f"{number}{ending}"))


def segment_once(kind: str, study: Path, out: Path) -> None:
    """Segment the study, or go on where an earlier call ended."""
    failed = segment(study, BUNDLE, out, device="cpu", formats=FORMATS[kind], **SETTINGS)
    if failed:
        raise SystemExit(f"failed: {failed}")


def damaged_files(out: Path, whole: Path) -> list[str]:
    """Files by their final name whose content is not that of the run that nothing killed.

    Of a case whose record is there, files that are missing, too.
    """
    found = []
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out)
        if path.is_file() and not _is_aside(name) and (whole / name).is_file():
            found += [] if is_same(path, whole / name) else [str(name)]
    for record in out.glob("*/*_run.json"):
        names = [path.name for path in (whole / record.parent.name).iterdir()]
        found += [name for name in names if not (record.parent / name).is_file()]
    return found


def missing_or_left(out: Path, whole: Path) -> list[str]:
    """Files and folders that are in one of the two outputs alone, once all is done."""
    names = [{str(p.relative_to(root)) for p in root.rglob("*")} for root in (out, whole)]
    return sorted(names[0] ^ names[1])


def is_same(first: Path, second: Path) -> bool:
    """Whether two files agree: byte by byte, but for what no two runs share.

    That are times and memory in records, pages and tables, times in comments of NRRD, and
    identifiers and times in DICOM objects.
    """
    if first.suffix == ".json":
        pair = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second)]
        return {**pair[0], **dict.fromkeys(VARYING)} == {**pair[1], **dict.fromkeys(VARYING)}
    if first.suffix == ".dcm":
        one, other = (pydicom.dcmread(path) for path in (first, second))
        return _shape_of(one) == _shape_of(other) and all(
            np.array_equal(a, b) for a, b in zip(_content(one), _content(other), strict=True)
        )
    if first.suffix == ".nrrd":  # its comments hold the time
        head, _, data = first.read_bytes().partition(b"\n\n")
        other_head, _, other_data = second.read_bytes().partition(b"\n\n")
        return data == other_data and _without_comments(head) == _without_comments(other_head)
    if first.suffix in (".html", ".csv", ".parquet"):  # show seconds
        return first.stat().st_size > 0.9 * second.stat().st_size
    return filecmp.cmp(first, second, shallow=False)


def _content(instance: Any) -> list[Any]:
    """All values of an object but identifiers, dates and times."""
    return [
        element.value
        for element in instance.iterall()
        if element.VR not in ("UI", "DA", "TM", "DT", "SQ")
    ]


def _shape_of(instance: Any) -> list[str]:
    return [str(element.tag) for element in instance.iterall()]


def _without_comments(header: bytes) -> list[bytes]:
    return [line for line in header.split(b"\n") if not line.startswith(b"#")]


def _is_aside(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


if __name__ == "__main__":
    logging.getLogger("medsegdiff").setLevel(logging.ERROR)
    main()
