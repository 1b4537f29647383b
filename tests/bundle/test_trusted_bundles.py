"""Configurations are programs: a bundle from elsewhere runs only once its user has said so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medsegdiff.bundle import trusted_bundles
from medsegdiff.bundle.bundle import Bundle, load_bundle
from medsegdiff.bundle.trusted_bundles import code_digest, trust, trusting
from medsegdiff.cli.main import app
from medsegdiff.core.errors import InputError, UsageError
from tests.conftest import MakeNifti

SHIPPED = "hippocampus_mr"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of settings, and a process that knows nothing."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setattr(trusted_bundles, "_known", set())
    yield tmp_path / "settings"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A bundle that writes a file when it is run."""
    root = copied(tmp_path / "foreign")
    path = root / "configs" / "inference.yaml"
    text = path.read_text(encoding="utf-8")
    evil = f"imports:\n  - \"$open({str(tmp_path / 'ran')!r}, 'w')\""
    path.write_text(text.replace("imports:", evil, 1), encoding="utf-8")
    return root


def copied(root: Path) -> Path:
    left_out = shutil.ignore_patterns("*.pt", "calibration.json")
    return Path(shutil.copytree(load_bundle(SHIPPED).root, root, ignore=left_out))


def replaced(root: Path, file: str, before: str, after: str) -> None:
    path = root / file
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def runs(root: Path) -> bool:
    """Whether it may, in a process that has not been asked before."""
    trusted_bundles._known.clear()
    try:
        Bundle(root).parser("inference")
    except InputError as error:
        assert "--trust" in error.remedy
        return False
    return True


def test_a_bundle_from_elsewhere_is_asked_for_once(foreign: Path, settings: Path) -> None:
    assert not runs(foreign)
    with trusting():
        assert runs(foreign)
    assert runs(foreign)
    assert runs(shutil.copytree(foreign, foreign.with_name("moved")))
    replaced(foreign, "configs/inference.yaml", "'w'", "'a'")
    assert not runs(foreign)
    shutil.rmtree(settings)
    assert not runs(foreign.with_name("moved"))


def test_another_text_in_others_code_asks_again(foreign: Path) -> None:
    """It may be what their code runs."""
    trust(foreign)
    replaced(foreign, "configs/inference.yaml", "members: 16", "members: 4")
    assert runs(foreign)
    replaced(foreign, "configs/inference.yaml", "fusion: mean", "fusion: rm -r")
    assert not runs(foreign)


def test_the_command_asks_before_any_code_runs(
    foreign: Path, make_nifti: MakeNifti, tmp_path: Path
) -> None:
    words = ["segment", str(make_nifti("a.nii.gz")), "--bundle", str(foreign)]
    words += ["--output", str(tmp_path / "out"), "--device", "cpu"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 1 and "add --trust, once" in told.output
    assert not (tmp_path / "ran").exists()
    told = CliRunner().invoke(app, [*words, "--trust"])
    assert "no weights" in told.output  # it has come to the network
    trusted_bundles._known.clear()
    assert "no weights" in CliRunner().invoke(app, words).output


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("configs/inference.yaml", "_target_: ", "_target_: os."),
        ("configs/inference.yaml", "$", "$print(1) or "),
        ("configs/train.yaml", "$", "$print(1) or "),
        ("configs/metadata.json", '"version": "', '"version": "$'),
        ("configs/logging.conf", "StreamHandler", "FileHandler"),
        ("configs/train.yaml", "tracking_uri: ", "tracking_uri: https://elsewhere.example #"),
        ("configs/inference.yaml", "fusion: mean", "_fusion_: mean"),
    ],
)
def test_what_can_be_code_asks_again(file: str, before: str, after: str, tmp_path: Path) -> None:
    root = copied(tmp_path / "copy")
    assert runs(root)
    replaced(root, file, before, after)
    assert not runs(root)


def test_a_python_file_asks_again(tmp_path: Path) -> None:
    root = copied(tmp_path / "copy")
    (root / "scripts").mkdir()
    (root / "scripts" / "further.py").write_text("print(1)")
    assert not runs(root)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("configs/inference.yaml", "channels: [16, 32, 64]", "channels: [8, 8]"),
        ("configs/inference.yaml", "members: 16", "members: 4"),
        ("configs/inference.yaml", "fusion: mean", "fusion: majority"),
        ("configs/inference.yaml", "anyway: false", "anyway: true"),
        ("configs/train.yaml", "experiment_name: ", "experiment_name: other_"),
        ("configs/metadata.json", '"version": "', '"version": "9.'),
    ],
)
def test_other_values_in_our_own_code_ask_nothing(
    file: str, before: str, after: str, tmp_path: Path
) -> None:
    root = copied(tmp_path / "copy")
    replaced(root, file, before, after)
    assert runs(root)


def test_a_switch_is_no_number(tmp_path: Path) -> None:
    """Of a bundle from elsewhere, such as ``weights_only``."""
    root = copied(tmp_path / "copy")
    digests = set()
    for value in ("true", "false", "0"):
        (root / "configs" / "further.yaml").write_text(f"weights_only: {value}\n")
        digests.add(code_digest(root, exact=True))
    assert len(digests) == 3


def test_files_outside_of_configs_are_not_referred_to(tmp_path: Path) -> None:
    root = copied(tmp_path / "copy")
    (tmp_path / "evil.yaml").write_text("a: $print(1)\n")
    for place in (tmp_path / "evil.yaml", Path("../evil.yaml")):
        text = f"further: '%{place}#a'\n"
        (root / "configs" / "odd.yaml").write_text(text)
        trust(root)
        with pytest.raises(InputError, match="not in its configs"):
            Bundle(root).parser("odd")


def test_without_a_home_this_process_remembers(
    foreign: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text("no folder")
    with pytest.raises(InputError, match="from elsewhere"):
        Bundle(foreign).parser("inference")
    trust(foreign)
    assert Bundle(foreign).parser("inference")["members"] == 16
    assert not runs(foreign)  # another process knows nothing


def test_what_describes_a_bundle_may_change(tmp_path: Path) -> None:
    root = copied(tmp_path / "mine")
    path = root / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata["changelog"]["9.0.0"] = "mine"
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["3"] = "tail"
    path.write_text(json.dumps(metadata), encoding="utf-8")
    assert runs(root)
    metadata["changelog"]["9.0.1"] = "$print()"
    path.write_text(json.dumps(metadata), encoding="utf-8")
    assert not runs(root)


@pytest.mark.parametrize("name", [".DS_Store", "train.yaml~", ".ipynb_checkpoints/a.yaml"])
def test_what_an_editor_leaves_asks_nothing(name: str, tmp_path: Path) -> None:
    root = copied(tmp_path / "mine")
    left = root / "configs" / name
    left.parent.mkdir(exist_ok=True)
    left.write_text("members: 2\n", encoding="utf-8")
    assert runs(root)


@pytest.mark.parametrize("name", [".hidden.yaml", ".ipynb_checkpoints/a.yaml"])
def test_hidden_files_which_are_not_looked_at_are_not_referred_to(
    name: str, tmp_path: Path
) -> None:
    root = copied(tmp_path / "mine")
    left = root / "configs" / name
    left.parent.mkdir(exist_ok=True)
    left.write_text("members: 2\n", encoding="utf-8")
    odd = root / "configs" / "odd.yaml"
    odd.write_text(f"members: '%configs/{name}#members'\n", encoding="utf-8")
    assert not runs(root)
    trust(root)
    with pytest.raises(InputError, match="or hidden there"):
        Bundle(root).parser("odd")


def test_a_name_of_two_bundles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = copied(tmp_path / SHIPPED)
    shipped = load_bundle(SHIPPED).root
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="both a bundle that ships and one in the") as caught:
        load_bundle(SHIPPED)
    assert f"./{SHIPPED}" in caught.value.remedy and str(shipped) in caught.value.remedy
    assert load_bundle(f"./{SHIPPED}").root == local.resolve()
    assert load_bundle(str(shipped)).root == shipped
    monkeypatch.chdir(shipped.parent)
    assert load_bundle(SHIPPED).root == shipped


def test_another_folder_of_that_name_is_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / SHIPPED / "imagesTr").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert load_bundle(SHIPPED).root != tmp_path / SHIPPED
