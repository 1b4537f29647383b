"""A job is killed and started again until it ends, and what differs is seen."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from benchmarks.reliability.inference_kills import damaged_files, missing_or_left
from benchmarks.reliability.killing import Tally, killed_until_it_ends
from medsegdiff.phantoms import write_dicom_series


def test_a_job_that_goes_on_where_it_was_ends_though_it_is_killed(tmp_path: Path) -> None:
    def do() -> None:
        for step in range(len(list(tmp_path.iterdir())), 4):
            time.sleep(0.05)
            (tmp_path / str(step)).touch()

    tally = Tally()
    killed_until_it_ends(
        do, 0.2, random.Random(0), tally, lambda: len(list(tmp_path.iterdir())), lambda: False
    )
    assert len(list(tmp_path.iterdir())) == 4
    assert tally.kills == tally.lost > 0


def outputs(folder: Path) -> tuple[Path, Path]:
    """Two outputs of one case that agree, but for what no two runs share."""
    for name, seconds in (("out", 1.0), ("whole", 2.0)):
        case = folder / name / "case"
        case.mkdir(parents=True)
        (case / "case_seg.nii.gz").write_bytes(b"mask")
        (case / "case_seg.seg.nrrd").write_bytes(f"NRRD0004\n# at {seconds}\n\ndata".encode())
        record = {"seconds": seconds, "seed": 0}
        (case / "case_run.json").write_text(json.dumps(record))
        write_dicom_series(np.ones((4, 4, 1), np.uint16), np.eye(4), case)
        (file,) = case.glob("*.dcm")
        instance = pydicom.dcmread(file)
        instance.SOPInstanceUID = pydicom.uid.generate_uid()
        instance.save_as(file)
    return folder / "out", folder / "whole"


def test_outputs_that_agree(tmp_path: Path) -> None:
    out, whole = outputs(tmp_path)
    assert damaged_files(out, whole) == missing_or_left(out, whole) == []


@pytest.mark.parametrize("name", ["case_seg.nii.gz", "case_seg.seg.nrrd", "case_run.json", "dcm"])
def test_a_difference_is_seen(name: str, tmp_path: Path) -> None:
    out, whole = outputs(tmp_path)
    (path,) = (out / "case").glob(f"*{name}")
    if name == "dcm":
        instance = pydicom.dcmread(path)
        instance.PixelData = b"\2" * len(instance.PixelData)
        instance.save_as(path)
    elif name == "case_run.json":
        path.write_text(json.dumps({"seconds": 1.0, "seed": 1}))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert damaged_files(out, whole) == [str(path.relative_to(out))]


def test_what_is_missing_or_left_is_seen(tmp_path: Path) -> None:
    out, whole = outputs(tmp_path)
    (out / "case" / "case_seg.nii.gz").unlink()
    assert damaged_files(out, whole) == ["case_seg.nii.gz"]  # its record says that it is there
    (out / "case" / ".writing-x").mkdir()
    assert missing_or_left(out, whole) == ["case/.writing-x", "case/case_seg.nii.gz"]
    shutil.rmtree(whole / "case")
    assert len(missing_or_left(out, whole)) > 3
