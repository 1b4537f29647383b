"""The bundle by MONAI's own command, as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import verify_net_in_out
from monai.bundle.config_parser import ConfigParser

from medsegdiff.bundle.bundle import Bundle, check_keys, device_change, list_bundles, load_bundle
from medsegdiff.calibration.application import read_bundle_calibration
from medsegdiff.core.errors import InputError, UsageError


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
        segments = ["calibrate", "evaluate", "inference", "member_agreement", "train"]
        further = set(bundle.configs) - {"train"}
        assert bundle.configs == segments if "inference" in further else further
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
