"""Words in, files out: prompt, ground and diffumask, on a tiny pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.cli.main import app
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import load_manifest
from medsegdiff.phantoms.captioned import write_captioned
from medsegdiff.phantoms.cohort import write_cohort
from medsegdiff.prompting.prompt_options import PromptOptions
from medsegdiff.prompting.prompted_case import Axis, find_words, slices_of
from medsegdiff.prompting.prompted_data import suited_options
from medsegdiff.prompting.taught_head import examples_of
from medsegdiff.prompting.word_segmenter import Prompted
from tests.tiny_pipeline import save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def volume(path: Path, codes: str = "RAS") -> Path:
    """Bright at the patient's left, the front and the head: one voxel block."""
    values = np.zeros((12, 10, 8), dtype=np.float32)
    values[1:4, 6:9, 5:7] = 1.0
    image = nib.Nifti1Image(values, np.diag([-1.0, 1.0, 2.0, 1.0]))
    ornt = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(nib.aff2axcodes(image.affine)),
        nib.orientations.axcodes2ornt(codes),
    )
    nib.save(image.as_reoriented(ornt), path)
    return path


def brightest(picture: torch.Tensor, names: object, number: int) -> Prompted:
    """Finds what is bright: stands for a segmenter."""
    bright = (picture[:1] > 0).float().expand(2, -1, -1)
    return Prompted(torch.stack([1 - bright, bright], dim=1), (bright > 0).any()[None])


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_masks_come_back_to_the_inputs_own_grid(axis: Axis, codes: str, tmp_path: Path) -> None:
    path = volume(tmp_path / "scan.nii.gz", codes)
    found = find_words(CaseInput("scan", (path,)), brightest, ["thing"], axis)
    truth = nib.load(path).get_fdata() > 0
    assert np.array_equal(found.case.mask > 0, truth)
    assert found.slices[0] == {"axial": 2, "coronal": 3, "sagittal": 3}[axis]


def test_slices_are_shown_as_radiologists_see_them() -> None:
    lps = torch.zeros(1, 4, 5, 6)
    lps[0, 3, 0, 5] = 1.0  # the patient's left, the front, the head
    axial, coronal, sagittal = (slices_of(lps, a) for a in get_args(Axis))
    assert axial[5, 0, 0, 3] == 1.0  # rows from the front, the left at the right
    assert coronal[0, 0, 0, 3] == 1.0  # rows from the head
    assert sagittal[3, 0, 0, 0] == 1.0


def test_prompt_writes_what_segment_writes(model: str, tmp_path: Path) -> None:
    scan, out = volume(tmp_path / "scan.nii.gz"), tmp_path / "out"
    words = ("prompt", scan, "liver", "left kidney", "--model", model, "--output", out)
    run(*words, "--draws", 2, "--levels", "0.2", "--presence", -1, "--save-members")
    files = {path.name.removeprefix("scan_") for path in (out / "scan").iterdir()}
    assert {"seg.nii.gz", "mean_left-kidney.nii.gz", "variance_liver.nii.gz"} <= files
    assert nib.load(out / "scan" / "scan_members.nii.gz").shape == (12, 10, 8, 2)
    assert "anchor.nii.gz" not in files
    record = json.loads((out / "scan" / "scan_run.json").read_text())
    assert record["words"] == ["liver", "left kidney"] and record["draws"] == 2
    assert record["found_in_slices"]["liver"] == {"found": 8, "of": 8}
    stamp = (out / "scan" / "scan_seg.nii.gz").stat().st_mtime_ns
    run(*words, "--draws", 2, "--levels", "0.2", "--presence", -1, "--save-members")
    assert (out / "scan" / "scan_seg.nii.gz").stat().st_mtime_ns == stamp
    result = CliRunner().invoke(app, [*map(str, words), "--draws", "3"])
    assert result.exit_code == 1
    assert "another" in json.loads((out / "failures.json").read_text())["scan"]


def test_a_conditional_field_is_asked_for_and_takes_narrow_pictures(
    model: str, tmp_path: Path
) -> None:
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((96, 6), np.float32), np.eye(4)), scan)
    words = ("prompt", scan, "liver", "kidney", "--model", model, "--presence", -1, "--draws", 2)
    run(*words, "--output", tmp_path / "with", "--crf", 8)
    run(*words, "--output", tmp_path / "without")
    options, means = {}, {}
    for kind in ("with", "without"):
        case = tmp_path / kind / "scan"
        options[kind] = json.loads((case / "scan_run.json").read_text())["crf"]
        means[kind] = nib.load(case / "scan_mean_liver.nii.gz").get_fdata()
    assert options == {"with": 8.0, "without": 0.0}
    assert means["with"].shape[:2] == (96, 6)
    assert np.abs(means["with"] - means["without"]).max() > 0.01


def test_a_word_that_is_nowhere_is_said_to_be(model: str, tmp_path: Path) -> None:
    scan, out = volume(tmp_path / "scan.nii.gz"), tmp_path / "out"
    run("prompt", scan, "liver", "--model", model, "--output", out, "--presence", 1e9, "--draws", 2)
    record = json.loads((out / "scan" / "scan_run.json").read_text())
    assert "found nowhere" in record["warnings"][0]
    assert not nib.load(out / "scan" / "scan_seg.nii.gz").get_fdata().any()


@pytest.mark.parametrize(
    ("words", "message"), [(["liver", "Liver"], "alike"), ([" "], "are missing")]
)
def test_words_have_to_differ(words: list[str], message: str, model: str, tmp_path: Path) -> None:
    scan = volume(tmp_path / "scan.nii.gz")
    result = CliRunner().invoke(
        app, ["prompt", str(scan), *words, "--model", model, "--output", str(tmp_path / "o")]
    )
    assert result.exit_code == 2 and message in result.output


def test_a_head_is_taught_and_looks(model: str, tmp_path: Path) -> None:
    write_cohort(tmp_path / "data", cases=6, spatial_dims=2, size=24)
    head = tmp_path / "head.pt"
    run("ground", tmp_path / "data", "--model", model, "--output", head, "--steps", 3,
        "--without", "Structure 2")  # fmt: skip
    scan = load_manifest(tmp_path / "data").cases[0].images[0]
    out = tmp_path / "out"
    run("prompt", scan, "structure 1", "--model", model, "--output", out, "--grounding", head)
    assert len(list(out.glob("*/*_mean_structure-1.nii.gz"))) == 1


def test_of_several_readers_the_majority_is_taught(tmp_path: Path) -> None:
    manifest = load_manifest(
        write_cohort(tmp_path, cases=1, spatial_dims=2, size=24, classes=1, raters=3, stacked=True)
    )
    (example,) = examples_of(manifest.cases[0], manifest, "axial", ())
    annotations = np.asanyarray(nib.load(manifest.cases[0].labels[0]).dataobj)
    majority = (annotations == 1).sum(axis=-1).squeeze() >= 2
    assert example.texts == (("structure 1",),)
    assert np.array_equal(np.asarray(example.masks[0]), majority.T)
    assert not np.array_equal(majority, annotations[..., 0].squeeze() == 1)


def test_a_head_with_nothing_to_learn_is_refused(model: str, tmp_path: Path) -> None:
    write_cohort(tmp_path / "data", cases=6, spatial_dims=2, size=24, classes=1)
    words = ["ground", str(tmp_path / "data"), "--model", model, "--output", "head.pt"]
    result = CliRunner().invoke(app, [*words, "--without", "Structure 1"])
    assert result.exit_code == 1


def test_drawn_pairs_are_a_data_set(model: str, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    words = ("diffumask", "liver", "kidney", "--model", model, "--output", out, "--count", 2)
    options = ("--steps", 2, "--agreement", 0, "--attributes", "left", "--seed", 1,
               "--fill-holes")  # fmt: skip
    result = CliRunner().invoke(app, [str(word) for word in (*words, *options)])
    record = json.loads((out / "diffumask.json").read_text())
    assert (record["kept"] == 2) == (result.exit_code == 0)
    assert record["drawn"] == record["kept"] + sum(record["dropped"].values())
    assert record["options"]["fill_holes"]
    if record["kept"]:
        manifest = load_manifest(out)
        assert list(manifest.labels.values()) == ["background", "liver", "kidney"]
    again = CliRunner().invoke(app, [str(word) for word in (*words, *options)])
    assert again.exit_code == 1


def test_the_bundle_that_ships_runs_as_monais_do(tmp_path: Path) -> None:
    write_captioned(tmp_path / "data", cases=1)
    bundle = load_bundle("small_text_to_image")
    monai.bundle.run(
        config_file=str(bundle.config("prompt")),
        bundle_root=str(bundle.root),
        dataset_dir=str(tmp_path / "data" / "imagesTr"),
        words=["liver", "lesion"],
        output_dir=str(tmp_path / "out"),
        **{"options#draws": 2},
    )
    record = json.loads((tmp_path / "out/captioned_0000/captioned_0000_run.json").read_text())
    assert record["words"] == ["liver", "lesion"] and record["attended"] == 0.3


def test_commands_look_as_the_models_bundle_recommends(tmp_path: Path) -> None:
    bundle = load_bundle("small_text_to_image")
    suited = suited_options(bundle.name)
    assert (suited.template, suited.attended, suited.presence) == ("a scan with {}", 0.3, -1.0)
    assert suited_options(bundle.name, presence=2.0, levels=None).presence == 2.0
    assert suited_options(str(bundle.root)) == suited
    assert suited_options("a/hub-name") == PromptOptions()
    write_captioned(tmp_path / "data", cases=1)
    scan = tmp_path / "data" / "imagesTr" / "captioned_0000.nii.gz"
    run("prompt", scan, "liver", "--model", bundle.root, "--output", tmp_path / "out", "--draws", 2)
    record = json.loads((tmp_path / "out/captioned_0000/captioned_0000_run.json").read_text())
    assert record["layers"] == suited.layers and record["draws"] == 2
