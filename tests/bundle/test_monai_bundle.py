"""The bundle by MONAI's own command, as its users run it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow, load, verify_net_in_out
from monai.bundle.config_parser import ConfigParser
from monai.transforms import Compose

from medsegdiff.bundle.bundle import (
    ENGINES,
    Bundle,
    check_keys,
    device_change,
    list_bundles,
    load_bundle,
)
from medsegdiff.calibration.application import read_bundle_calibration
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.transforms import load as load_item
from medsegdiff.data.transforms import restore


def monai_run(bundle: Bundle, config: str, **values: object) -> str:
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", f"configs/{config}.yaml"]
    for key, value in values.items():
        words += [f"--{key.replace('__', '#')}", str(value)]
    done = subprocess.run(words, cwd=bundle.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_train(untrained: Bundle, cohort: Path, tmp_path: Path) -> None:
    output = monai_run(
        untrained,
        "train",
        dataset_dir=cohort,
        output_dir=tmp_path / "run",
        tracking_uri=f"sqlite:///{tmp_path}/mlruns.db",
        train__trainer__max_epochs=1,
        val_interval=1,
        validate__inferer__members=2,
        validate__inferer__steps=1,
    )
    assert "val_mean_dice" in output and (tmp_path / "run" / "final.pt").is_file()


def test_inference(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    folder = cohort.parent / "imagesTr"
    monai_run(bundle, "inference", dataset_dir=folder, output_dir=tmp_path, members=2, steps=1)
    assert len(list(tmp_path.glob("*/*_seg.nii.gz"))) == 5


def test_evaluate(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    small = "{'members': 3, 'steps': 1}"
    monai_run(bundle, "evaluate", dataset_dir=cohort, output_dir=tmp_path, inference=small)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["settings"]["members"] == 3 and len(report["cases"]) == 1
    assert {"members", "anchor"} <= set(report["summary"])
    assert "<html" in (tmp_path / "report" / "report.html").read_text()


def test_calibrate(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    monai_run(
        bundle,
        "calibrate",
        dataset_dir=cohort,
        output_dir=tmp_path / "out",
        calibration_file=tmp_path / "c.json",
        splits=0,
        inference="{'members': 2, 'steps': 1}",
    )
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["n"] == 1 and not (bundle.root / "models" / "calibration.json").exists()


def test_monais_workflow_of_training_has_all_that_it_asks_for(
    bundle: Bundle, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.root)  # where references to other files of it start
    workflow = create_workflow(
        config_file="configs/train.yaml",
        workflow_type="train",
        dataset_dir=str(cohort),
        output_dir=str(tmp_path),
        tracking_uri="off",
    )
    assert workflow.check_properties() == []
    assert workflow.max_epochs == 90


def test_monais_workflow_of_inference_segments(
    bundle: Bundle, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that MONAI asks for is there, and its evaluator writes what the inferer draws."""
    monkeypatch.chdir(tmp_path)
    images, out = cohort.parent / "imagesTr", tmp_path / "out"
    workflow = create_workflow(
        config_file=str(bundle.root / "configs" / "inference.yaml"),
        workflow_type="infer",
        bundle_root=str(bundle.root),
        dataset_dir=str(images),
        output_dir=str(out),
        members=2,
    )
    assert workflow.check_properties() == []
    workflow.evaluator.run()
    files = sorted(images.glob("*.nii.gz"))
    assert len(list(out.glob("*/*_seg.nii.gz"))) == len(files) == 5
    chain: Compose = workflow.preprocessing
    for file in files[:2]:
        image = load_item(chain, {"case": "a", "image": [str(file)]})["image"]
        mean = workflow.inferer.ensemble(image, workflow.parser.get_parsed_content("network"), "0")
        expected = restore(mean.mean, image, chain).argmax(axis=0)
        name = file.name.removesuffix(".nii.gz")
        written = nib.load(out / name / f"{name}_seg.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
        np.testing.assert_allclose(written.affine, nib.load(file).affine)


def test_without_images_the_workflow_can_still_be_asked(bundle: Bundle, tmp_path: Path) -> None:
    workflow = create_workflow(
        config_file=str(bundle.root / "configs" / "inference.yaml"),
        workflow_type="infer",
        bundle_root=str(bundle.root),
        dataset_dir=str(tmp_path),
    )
    assert workflow.check_properties() == []
    assert len(workflow.dataset) == 0


def test_monai_loads_the_weights_into_the_network(bundle: Bundle) -> None:
    network = bundle.parser("inference").get_parsed_content("network_def")
    where = {"name": bundle.root.name, "bundle_dir": bundle.root.parent, "device": "cpu"}
    loaded = load(model=network, **where)
    weights = torch.load(bundle.weights(), weights_only=True)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with pytest.warns(UserWarning, match="return state dict"):  # configurations here are YAML
        assert load(**where).keys() == weights.keys()


def test_what_is_for_monais_engines_is_not_in_the_fingerprint(
    bundle: Bundle, tmp_path: Path
) -> None:
    root = tmp_path / "other"
    shutil.copytree(bundle.root, root)
    path, other = root / "configs" / "inference.yaml", Bundle(root)
    text = path.read_text("utf-8")
    deciding, mark, engines = text.partition(ENGINES)
    assert mark and "evaluator:" in engines and "network_def:" in deciding
    path.write_text(deciding, "utf-8")
    assert other.fingerprint() == bundle.fingerprint()
    path.write_text(text.replace("print_log: false", "print_log: true"), "utf-8")
    assert other.fingerprint() == bundle.fingerprint()
    path.write_text(text.replace("steps: 1", "steps: 2", 1), "utf-8")
    assert other.fingerprint() != bundle.fingerprint()


@pytest.mark.parametrize("name", ["hippocampus_mr", "lung_nodule_ct"])
def test_what_is_for_monais_engines_changes_no_key_before_it(name: str) -> None:
    """It would decide masks without being in the fingerprint."""
    text = load_bundle(name).config("inference").read_text("utf-8")
    keys = [line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()]
    assert len(keys) == len(set(keys)) > 30


@pytest.mark.parametrize("config", ["train", "inference"])
def test_the_network_is_what_the_metadata_says(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = load_bundle("hippocampus_mr").root
    monkeypatch.chdir(root if config == "train" else "/")  # inference needs no other file
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / f"{config}.yaml"),
        device="cpu",
        p=1,
        n=2,
        any=16,
    )


def test_shipped_bundles_are_complete() -> None:
    assert "hippocampus_mr" in [bundle.name for bundle in list_bundles()]
    for bundle in list_bundles():
        trains = {"multi_gpu_train", "train"}
        segments = {"calibrate", "evaluate", "inference", "member_agreement", *trains}
        further = set(bundle.configs) - trains
        assert set(bundle.configs) == segments if "inference" in further else further
        for name in ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"):
            assert (bundle.root / name).is_file(), name
        assert bundle.metadata["version"] in bundle.metadata["changelog"]
        read_bundle_calibration(bundle)  # where there is one it is of these weights, else it raises
        assert sum(file.stat().st_size for file in bundle.weight_files()) < 25e6


@pytest.mark.parametrize(
    ("name", "error", "word"),
    [("hippocampus_ct", UsageError, "Did you mean hippocampus_mr"), (".", InputError, "metadata")],
)
def test_what_is_no_bundle_is_refused(name: str, error: type[InputError], word: str) -> None:
    with pytest.raises(error, match=word):
        load_bundle(name)


def test_keys_of_lists_and_nested_values_are_known() -> None:
    parser = ConfigParser({"a": {"b": [{"c": 1}]}})
    check_keys(parser, {"a#b#0#c": 2, "a::b": 3}, Path("x"))
    with pytest.raises(UsageError, match="Did you mean a#b#0#c"):
        check_keys(parser, {"a#b#0#d": 2}, Path("x"))


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=f"--device {device}.*Use --device cpu"):
        device_change(device)
    assert device_change("auto") == {}
    assert device_change("cpu") == {"device": "$torch.device('cpu')"}
