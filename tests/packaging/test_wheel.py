"""The wheel, installed without any extra into an environment of its own: ``make wheel-test``.

It takes minutes, and pip has to reach an index: so it is skipped unless ``--wheel-env`` names the
folder of the environment, which is made where there is none.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BUNDLES = sorted(path.parents[1].name for path in ROOT.glob("bundles/*/configs/metadata.json"))
LARGEST = 50 * 10**6
"""Size of the wheel in bytes that people on slow lines may be asked for."""

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    if not request.config.getoption("--wheel-env"):
        pytest.skip("the wheel is tried by `make wheel-test`, which takes minutes")
    folder = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*pip, str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(request: pytest.FixtureRequest, wheel: Path) -> Path:
    """Folder of the programs of an environment that holds the wheel and what it depends on."""
    folder = Path(request.config.getoption("--wheel-env")).absolute()
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True)
    subprocess.run([*pip, "--force-reinstall", "--no-deps", str(wheel)], check=True)
    return python.parent


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Run:
    return Run(environment, tmp_path)


class Run:
    """Runs command lines of the environment in a folder of their own."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder

    def __call__(self, line: str, code: int = 0) -> str:
        """What a line of ``medsegdiff`` prints; its exit code is ``code``, and no traceback."""
        settings = {**os.environ, "XDG_CONFIG_HOME": str(self.folder / "settings")}
        settings.pop("PYTHONPATH", None)
        words = [str(self.programs / "medsegdiff"), *shlex.split(line)]
        done = subprocess.run(
            words, cwd=self.folder, env=settings, capture_output=True, text=True, check=False
        )
        told = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == code, told
        assert "Traceback" not in told
        return told


def test_the_wheel_is_small_and_holds_what_is_needed(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"medsegdiff", f"medsegdiff-{PROJECT['version']}.dist-info"}
    for tree, place in (("medsegdiff", ""), ("bundles", "medsegdiff/")):
        kept = subprocess.run(
            ["git", "ls-files", tree], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert {place + name for name in kept.stdout.splitlines()} <= set(names), tree
    assert "medsegdiff/data_manifests/hippocampus_mr.json" in names
    assert not [name for name in names if "/runs/" in name or "/eval/" in name or ".pyc" in name]


def test_version_and_bundles_are_told(run: Run) -> None:
    assert run("--version") == PROJECT["version"]
    told = run("bundles")
    assert [name for name in BUNDLES if name in told] == BUNDLES


def test_every_command_starts_without_extras(run: Run) -> None:
    from medsegdiff.cli.main import app

    for name in (command.name or command.callback.__name__ for command in app.registered_commands):  # type: ignore[union-attr]
        assert "Usage: medsegdiff" in run(f"{name.replace('_', '-')} --help")


def test_a_scan_is_segmented_and_evaluated(run: Run) -> None:
    shape, affine = (36, 48, 36), np.diag([1.0, 1.0, 1.0, 1.0])
    values = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), run.folder / "scan.nii.gz")
    run("segment scan.nii.gz --bundle hippocampus_mr --output out --members 2 --device cpu")
    mask = nib.load(run.folder / "out" / "scan" / "scan_seg.nii.gz")
    assert mask.shape == shape and np.array_equal(mask.affine, affine)
    labels = np.zeros(shape, np.uint8)
    labels[10:20, 10:20, 10:20], labels[10:20, 20:30, 10:20] = 1, 2
    nib.save(nib.Nifti1Image(labels, affine), run.folder / "label.nii.gz")
    described = {
        "name": "one",
        "labels": {"0": "background", "1": "anterior", "2": "posterior"},
        "training": [{"image": "scan.nii.gz", "label": "label.nii.gz"}],
    }
    (run.folder / "dataset.json").write_text(json.dumps(described))
    run("evaluate --data dataset.json --predictions out --output report")
    assert (run.folder / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("line", "extra", "code"),
    [
        ("segment a.nii.gz --bundle hippocampus_mr --output out --format nrrd", "slicer", 1),
        (
            "segment a.nii.gz --bundle hippocampus_mr --output out --format dicom-seg",
            "dicom-seg",
            1,
        ),
        ("segment http://localhost:9/studies/1 --bundle hippocampus_mr --output out", "pacs", 1),
        ("segment data --fold 0 --bundle hippocampus_mr --output out --engine ray", "cohort", 1),
        ("train hippocampus_mr --data data --output out", "train", 1),
        ("fit data --output out", "train", 1),
        ("segment a.nii.gz --bundle models:/name/1 --output out", "train", 1),
        ("prompt a.nii.gz liver --model small_text_to_image --output out", "text", 2),
        ("ground data --model small_text_to_image --output out/head.pt", "text", 2),
        ("export hippocampus_mr --output out --size 40,56,40", "export", 1),
        ("diffumask liver --model small_text_to_image --output out", "text", 2),
    ],
)
def test_a_missing_extra_is_told_before_any_work(
    run: Run, line: str, extra: str, code: int
) -> None:
    from medsegdiff.phantoms import write_cohort

    write_cohort(run.folder / "data", cases=5, size=16)
    nib.save(nib.Nifti1Image(np.ones((20, 20, 20), np.float32), np.eye(4)), run.folder / "a.nii.gz")
    assert f"pip install 'medsegdiff[{extra}]'" in run(line, code)
    out = run.folder / "out"
    left = {path.name for path in out.rglob("*") if path.is_file()} if out.exists() else set()
    assert left <= {"config.yaml"}  # the settings, with which train begins
