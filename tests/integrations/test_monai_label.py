"""The app of MONAI Label: its worker by itself, and a server that answers Slicer's calls.

The server needs an environment of its own: ``make label-test`` makes it, which takes minutes, and
elsewhere those tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.cases import segment
from medsegdiff.cases.demonstration import load_template

APP = Path(__file__).resolve().parents[2] / "integrations" / "monai_label"
SETTINGS: dict[str, Any] = {"members": 2, "steps": 1, "device": "cpu", "formats": ["nifti"]}
LEFT = (-28.0, -20.0, -16.0)
"""A point in RAS+ mm inside the left hippocampus of ICBM152."""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The head of ICBM152, in a folder that holds nothing else."""
    path = tmp_path_factory.mktemp("studies") / "icbm152.nii.gz"
    nib.save(load_template(), path)
    return path


@pytest.fixture(scope="module")
def at_point(head: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the files of the head, segmented at the point by our own command."""
    output = tmp_path_factory.mktemp("command")
    text = ",".join(str(value) for value in LEFT)
    assert not segment(head, "hippocampus_mr", output, at=text, **SETTINGS)
    return output / "icbm152"


def voxel(head: Path) -> list[int]:
    """Index of the voxel at the point, as the viewer sends it."""
    index = np.linalg.inv(nib.load(head).affine) @ (*LEFT, 1.0)
    return [round(value) for value in index[:3]]


def values(path: Path | str) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


@pytest.mark.long
def test_the_worker_answers_and_outlives_errors(head: Path, at_point: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"image": str(head), "bundle": "hippocampus_mr", "settings": SETTINGS}
    requests = [
        {"describe": "hippocampus_mr"},
        {"describe": "no_such_bundle"},
        {**asked, "image": str(tmp_path / "gone.nii"), "output": str(tmp_path / "1")},
        {**asked, "output": str(tmp_path / "2"), "voxels": [voxel(head)]},
    ]
    done = subprocess.run(
        [sys.executable, str(APP / "worker.py")],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=True,
    )
    described, unknown, missing, segmented = map(json.loads, done.stdout.splitlines())
    assert described["labels"] == {"anterior": 1, "posterior": 2} and described["at_points"]
    assert described["in_files"] == {"anterior": "anterior", "posterior": "posterior"}
    assert "no_such_bundle" in unknown["error"] and "gone.nii" in missing["error"]
    mask = values(Path(segmented["folder"]) / "icbm152_seg.nii.gz")
    assert mask.any()
    assert np.array_equal(mask, values(at_point / "icbm152_seg.nii.gz"))


@pytest.fixture(scope="module")
def label_environment(request: pytest.FixtureRequest) -> Path:
    """Folder of the programs of MONAI Label's environment."""
    if not request.config.getoption("--label-env"):
        pytest.skip("the server of MONAI Label is tried by `make label-test`, which takes minutes")
    folder = Path(request.config.getoption("--label-env")).absolute()
    if not (folder / "bin" / "monailabel").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        subprocess.run([*pip, "--requirement", str(APP / "requirements.txt")], check=True)
        subprocess.run([*pip, "--no-deps", "monailabel==0.8.5"], check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def server(
    label_environment: Path, head: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a server of the app on loopback, with the head as its only image."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    app = shutil.copytree(APP, folder / "app")  # in which the server keeps its log
    command = [str(label_environment / "monailabel"), "start_server", "--app", str(app)]
    command += ["--studies", str(head.parent), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--conf", "python", sys.executable, "--conf", "bundles", "hippocampus_mr"]
    command += ["--conf", "members", "2", "--conf", "steps", "1", "--conf", "device", "cpu"]
    path = f"{label_environment}{os.pathsep}{os.environ['PATH']}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "PATH": path}, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/info/", process, folder / "log")
            yield address
        finally:
            process.terminate()
            process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=60).close()
            return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text())


@pytest.mark.timeout(1800)
def test_a_server_answers_the_calls_of_slicer(
    label_environment: Path, server: str, head: Path, at_point: Path, tmp_path: Path
) -> None:
    point = {"foreground": [voxel(head)], "background": [], "label": "posterior"}
    image = {"call": "infer", "image_id": "icbm152"}
    calls = [
        {"call": "info"},
        {"call": "datastore"},
        {"call": "next_sample", "strategy": "random", "params": {}},
        {**image, "model": "hippocampus_mr_at_points", "params": point},
        {**image, "model": "hippocampus_mr_at_points", "params": {"label": "posterior"}},
        {**image, "model": "hippocampus_mr", "params": {}},
        {**image, "model": "hippocampus_mr_variance", "params": {"label": "posterior"}},
        {**image, "model": "hippocampus_mr_variance", "params": {"label": "my [segment"}},
        {
            "call": "infer",
            "image_id": "",
            "file": str(head),
            "model": "hippocampus_mr",
            "params": {},
        },
    ]
    script = Path(__file__).with_name("viewer_calls.py")
    words = [str(label_environment / "python"), str(script), server, str(tmp_path)]
    done = subprocess.run([*words, json.dumps(calls)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    info, datastore, sample, clicked, unclicked, whole, variance, other, sent = json.loads(
        done.stdout
    )
    models = {name: one["type"] for name, one in info["models"].items()}
    assert models == {
        "hippocampus_mr": "segmentation",
        "hippocampus_mr_variance": "others",
        "hippocampus_mr_at_points": "deepgrow",
    }
    assert list(datastore["objects"]) == ["icbm152"] and sample["id"] == "icbm152"

    expected = values(at_point / "icbm152_seg.nii.gz") == 2
    assert expected.any() and np.array_equal(values(clicked["image"]), expected)
    assert "click on the structure" in unclicked["error"]

    mask = values(whole["image"])
    assert set(np.unique(mask)) == {0, 1, 2}
    assert nib.load(whole["image"]).header.get_sform().tolist() == nib.load(head).affine.tolist()
    assert whole["params"]["label_names"] == {"anterior": 1, "posterior": 2}
    volume = whole["params"]["volume_ml"]["anterior"]
    low, high = volume["interval_90"]
    assert low <= volume["ensemble"] <= high and "review" in whole["params"]
    doubt = values(variance["image"])
    assert doubt.shape == mask.shape and 0 < doubt.max() <= 0.25
    assert values(other["image"]).any() and not np.array_equal(values(other["image"]), doubt)
    assert set(np.unique(values(sent["image"]))) == {0, 1, 2}
