"""What tests share: few threads, real data where there is some, tiny NIfTI files."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import nibabel as nib
import numpy as np
import pytest
import torch

pytest_plugins = ["tests.tiny_bundle"]

MakeNifti = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What only some runs can do."""
    parser.addoption("--need-orthanc", action="store_true", help="fail without an Orthanc server")
    parser.addoption("--wheel-env", help="folder of an environment to build, and try the wheel in")
    parser.addoption("--label-env", help="folder of an environment to build for MONAI Label")
    parser.addoption("--full-size", action="store_true", help="run Stable Diffusion's full layout")


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests trust is not trusted by whoever runs them, and the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session", autouse=True)
def check_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """The check of MLflow's database as it is; in tests one is made once a process, and copied."""
    from medsegdiff.training import tracking

    template, make = tmp_path_factory.mktemp("mlflow") / "mlruns.db", tracking._check_database

    def check(path: Path) -> None:
        if not path.exists() and path.parent.is_dir():
            if not template.exists():
                make(template)
            shutil.copy(template, path)
        make(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "_check_database", check)
        yield make


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command sets the log up for its process, and other tests read what is logged."""
    log = logging.getLogger("medsegdiff")
    before = log.level, log.handlers, log.propagate
    yield
    log.setLevel(before[0])
    log.handlers, log.propagate = before[1:]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors in tests are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``MEDSEGDIFF_DATA``, else ``../shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDSEGDIFF_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set MEDSEGDIFF_DATA to the folder that holds it")
    return folder


@pytest.fixture
def make_nifti(tmp_path: Path) -> MakeNifti:
    """Writes a tiny NIfTI file: ``make_nifti("a.nii.gz", shape=(8, 9, 7), affine=..., seed=0)``."""

    def make(
        name: str = "image.nii.gz",
        *,
        array: np.ndarray | None = None,
        shape: tuple[int, ...] = (8, 9, 7),
        affine: np.ndarray | None = None,
        seed: int = 0,
    ) -> Path:
        if array is None:
            array = np.random.default_rng(seed).normal(100.0, 20.0, shape).astype(np.float32)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
        return path

    return make
