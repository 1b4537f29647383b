"""A command that is told to end leaves no unpacked file of a patient behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SEGMENT = """
import time
from pathlib import Path
from medsegdiff.cases import job
from medsegdiff.cases.inputs import found_cases

def waiting(inputs, bundle, output, **settings):
    with found_cases([Path(one) for one in inputs], Path(output)) as (cases, _):
        print(len(cases), flush=True)
        time.sleep(60)

job.segment = waiting
from medsegdiff.cli.main import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_unpacked_files_are_removed(number: signal.Signals, tmp_path: Path) -> None:
    archive, unpacked = tmp_path / "doe_jane.zip", tmp_path / "temporary"
    unpacked.mkdir()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("doe.nii", b"x" * 100)
    words = ["segment", str(archive), "--bundle", "hippocampus_mr", "--output", str(tmp_path / "o")]
    process = subprocess.Popen(
        [sys.executable, "-c", SEGMENT, *words],
        env={**os.environ, "TMPDIR": str(unpacked)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if process.stdout is None:
        raise ValueError("no pipe")
    assert process.stdout.readline() == "1\n"
    assert len(list(unpacked.rglob("doe.nii"))) == 1
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert list(unpacked.iterdir()) == []
    assert f"stopped by {number.name}" in told and "Traceback" not in told
