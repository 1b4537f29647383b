"""Files that end, block or fill the process that reads them: a worker's, and not this one."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medsegdiff.cases.inputs import found_cases
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.core import worker_process
from medsegdiff.core.errors import InputError
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.images import read_geometry, read_image
from medsegdiff.data.readers import apart

FRAGILE = """
import os, time
from medsegdiff.core.serving import serve
from medsegdiff.data.readers import reading_worker

def answer(request, send):
    if "abort" in request["path"]:
        os.abort()
    if "endless" in request["path"]:
        time.sleep(600)
    reading_worker.answer(request, send)

serve(answer)
"""
"""A worker to whom some names do what damaged files have done to libraries in C."""
VOLUMES = (".nrrd", ".mha")
PICTURES = (".png", ".tif")


@pytest.fixture(autouse=True)
def _own_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those of other tests have read their settings."""
    monkeypatch.setattr(apart, "_idle", workers := list[worker_process.Worker]())
    yield
    for worker in workers:
        worker.close()


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(apart, "_WORKER", "fragile")


def written(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix in VOLUMES:
        values = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path), useCompression=True)
    else:
        Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).save(path)
    return path


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("ending", VOLUMES + PICTURES)
def test_a_file_that_ends_the_library_fails_one_case(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b_abort", "c"):
        written(tmp_path / "in" / f"{name}{ending}")
    done = []

    def do(case: CaseInput) -> None:
        read_image(case.image[0])
        done.append(case.id)

    with found_cases([tmp_path / "in"], tmp_path / "out") as (cases, failures):
        errors = one_by_one(cases, failures, tmp_path / "out", do, "read")
    assert done == ["a", "c"] and list(errors) == ["b_abort"]
    assert "cannot be read as an image (the decoder fails)" in str(errors["b_abort"])


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("ending", [".nrrd", ".tif"])
def test_a_file_without_end_is_given_up(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_image(written(tmp_path / f"a{ending}"))
    monkeypatch.setenv("MEDSEGDIFF_DECODING_SECONDS", "0.2")
    path = written(tmp_path / f"endless{ending}")
    with pytest.raises(InputError, match=r"longer than 0.2 s, the limit of MEDSEGDIFF_DECODING"):
        read_image(path)
    assert read_image(tmp_path / f"a{ending}")[0].any()


@pytest.mark.parametrize("ending", VOLUMES + PICTURES)
def test_the_memory_of_a_worker_is_bounded(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / f"a{ending}")
    monkeypatch.setenv("MEDSEGDIFF_DECODING_GIB", "1e-3")
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(path)
    monkeypatch.delenv("MEDSEGDIFF_DECODING_GIB")
    assert read_image(path)[0].any()


def test_one_worker_serves_file_after_file(tmp_path: Path) -> None:
    for ending in VOLUMES + PICTURES:
        read_image(written(tmp_path / f"a{ending}"))
        read_geometry(tmp_path / f"a{ending}")
    assert len(apart._idle) == 1


def test_values_can_be_changed(tmp_path: Path) -> None:
    """As those of a library in this process."""
    values, _ = read_image(written(tmp_path / "a.nrrd"))
    values += 1
    assert values.ravel().sum() == sum(range(61))


def test_threads_do_not_share_a_worker(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{number}.nrrd") for number in range(3)]
    found: list[int] = []

    def read(path: Path) -> None:
        found.extend(int(read_image(path)[0].sum()) for _ in range(5))

    threads = [threading.Thread(target=read, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [sum(range(60))] * 15 and 1 <= len(apart._idle) <= 3


def test_a_forked_process_starts_its_own(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nrrd")
    read_image(path)
    (before,) = apart._idle
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_reads_by_another, (path, before._process.pid))
    assert read_image(path)[0].any() and apart._idle == [before]


def _reads_by_another(path: Path, process: int) -> bool:
    read = read_image(path)[0].any()
    return bool(read) and apart._idle[0]._process.pid != process


def test_a_worker_ends_with_its_caller(tmp_path: Path) -> None:
    code = (
        "import os, sys; from medsegdiff.data.readers import apart\n"
        "from medsegdiff.data.images import read_image\n"
        "read_image(sys.argv[1]); print(apart._idle[0]._process.pid, flush=True); os._exit(0)"
    )
    command = [sys.executable, "-c", code, str(written(tmp_path / "a.nrrd"))]
    paths = os.pathsep.join(
        [str(Path(apart.__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": paths}
    )
    until = time.monotonic() + 20
    while runs(int(done.stdout)):
        assert time.monotonic() < until
        time.sleep(0.05)


def runs(process: int) -> bool:
    """Whether a process runs; one that has ended may wait for someone to ask."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
