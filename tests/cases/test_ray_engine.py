"""Cases on workers of Ray: the same files, and none is lost with a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cases.job import segment
from medsegdiff.core.errors import InputError, UsageError
from tests.cases.test_segmenter import OBLIQUE, image_file

pytest.importorskip("ray", reason="the extra cohort is not installed")
FEW: dict[str, Any] = {"members": 2, "steps": 1, "device": "cpu"}


def workers() -> list[int]:
    found = subprocess.run(["pgrep", "-f", "ray::_Worker"], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


@pytest.mark.long
def test_no_case_is_lost_with_a_worker(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else they starve beside other tests
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in "abcd":
        image_file(scans, OBLIQUE, f"{name}.nii.gz")
    (scans / "g.nii.gz").write_bytes(b"no image")
    killed: list[int] = []

    def tell(case: str, error: InputError | None) -> None:
        if not killed and error is None:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    output = tmp_path / "ray"
    failures = segment([scans], bundle, output, engine="ray", workers=2, tell=tell, **FEW)
    assert killed and set(failures) == {"g"}
    segment([scans], bundle, tmp_path / "alone", **FEW)
    for name in "abcd":
        one, other = (
            nib.load(tmp_path / way / name / f"{name}_mean_anterior.nii.gz").get_fdata()
            for way in ("ray", "alone")
        )
        np.testing.assert_allclose(one, other, atol=1e-5)
    for _ in range(100):
        if not workers():
            break
        time.sleep(0.2)
    assert workers() == []  # none is left behind


def test_what_cannot_be_started_is_told(bundle: Bundle, tmp_path: Path) -> None:
    scan = image_file(tmp_path, OBLIQUE)
    with pytest.raises(UsageError, match="are for a Ray cluster"):
        segment([scan], bundle, tmp_path / "out", workers=2, **FEW)
    for address in ("127.0.0.1:1", "nowhere"):
        with pytest.raises(UsageError, match="no Ray cluster can be joined"):
            segment([scan], bundle, tmp_path / "out", engine="ray", address=address, **FEW)
