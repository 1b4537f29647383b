"""Libraries that would name a patient keep silent, and speak again afterwards."""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medsegdiff.core.quiet import LIBRARIES, silenced
from medsegdiff.phantoms.cohort import write_dicom_series


def speak(path: Path) -> None:
    """Pydicom logs and warns of the value of an identifier that is none."""
    assert pydicom.dcmread(path).SeriesInstanceUID == "1.2.DOE"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file with such an identifier."""
    file = write_dicom_series(np.zeros((4, 4, 1), np.uint16), np.eye(4), tmp_path)[0]
    header = pydicom.dcmread(file)
    with warnings.catch_warnings(action="ignore"):
        header.SeriesInstanceUID = "1.2.DOE"
        header.save_as(file)
    return file


def test_what_a_header_says_is_not_repeated(
    broken: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always")
    with caplog.at_level(logging.DEBUG):
        with silenced(), silenced():
            speak(broken)
        assert "DOE" not in caplog.text and not recwarn.list
        speak(broken)
        assert "DOE" in caplog.text and recwarn.list


def test_threads_do_not_wake_them_early() -> None:
    before = {name: logging.getLogger(name).level for name in LIBRARIES}
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with silenced():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(5)
    with silenced():
        pass
    assert all(logging.getLogger(name).level == logging.CRITICAL for name in LIBRARIES)
    leave.set()
    thread.join()
    assert {name: logging.getLogger(name).level for name in LIBRARIES} == before
