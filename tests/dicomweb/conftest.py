"""A server that answers as a test wants, and a client that does not wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.dicomweb import client
from medsegdiff.phantoms.cohort import write_dicom_series
from tests.dicomweb.fake_server import FakeServer, serving


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials but the test's, no long waits."""
    for name in (client.TOKEN, client.USER, client.PASSWORD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(client, "FIRST_WAIT_MS", 1)
    monkeypatch.setattr(client, "TIMEOUT", (2.0, 0.5))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """It runs for as long as the test."""
    with serving() as fake:
        yield fake


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """The four files of a series."""
    volume = np.arange(6 * 5 * 4, dtype=np.uint16).reshape(6, 5, 4)
    return write_dicom_series(volume, np.eye(4), tmp_path / "series", patient="DOE^JANE")
