"""The documentation is true: commands parse, links resolve, keys exist, the tutorial runs."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import nibabel as nib
import numpy as np
import pytest
import typer
from monai.bundle import ConfigParser

from medsegdiff.bundle.bundle import Bundle, check_keys, list_bundles, load_bundle
from medsegdiff.cli.common import parse_overrides
from medsegdiff.cli.main import app
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.predictions import foreground
from medsegdiff.evaluation import report as report_module
from medsegdiff.evaluation.folder import evaluate
from medsegdiff.phantoms.cohort import write_cohort

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(DOCS.rglob("*.md")),
]
TUTORIAL = DOCS / "tutorials" / "first_study.md"
COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
SHIPPED = "hippocampus_mr"
MASKS = ("inner", "outer")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in some languages; all of them if none is named."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    return [text for language, text in found if not languages or language in languages]


def lines(block: str, start: str) -> list[str]:
    """The lines of a block that start so, without a prompt, and what is said two blanks later."""
    joined = block.replace("\\\n", " ").splitlines()
    plain = [re.split(r"\s{2,}", line.strip().removeprefix("$ "))[0] for line in joined]
    return [line for line in plain if line.startswith(start)]


def shown(start: str) -> list[Any]:
    """Every such line of every page, as parameters of a test."""
    found = [(page, line) for page in PAGES for b in blocks(page) for line in lines(b, start)]
    return [pytest.param(line, id=f"{name_of(page)}: {line}") for page, line in found]


def table_keys(text: str) -> set[str]:
    """What stands as code in the first cells of a text's tables."""
    cells = re.findall(r"^\| *(`[^|]*?) *\|", text, re.M)
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or a higher one."""
    level = heading.split()[0]
    _, _, rest = page.read_text("utf-8").partition(f"\n{heading}\n")
    assert rest, f"{name_of(page)} has no {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.M)[0]


def check_line(line: str) -> None:
    """Parse a whole command line as the program does; the keys of ``--set`` have to exist."""
    name, *words = shlex.split(line)[1:]
    try:
        context = COMMANDS[name].make_context(name, words)
    except typer.Exit:  # --help
        return
    overrides = parse_overrides(context.params.get("settings") or [])
    if overrides:  # of one of the bundles that a reader may have copied
        assert any(has_keys(bundle, overrides) for bundle in list_bundles()), overrides


def has_keys(bundle: Bundle, overrides: dict[str, Any]) -> bool:
    try:
        check_keys(bundle.parser("train"), overrides, bundle.config("train"))
    except (UsageError, InputError):  # the latter: it has no train.yaml
        return False
    return True


@pytest.mark.parametrize("line", shown("medsegdiff "))
def test_shown_commands_parse(line: str) -> None:
    check_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "medsegdiff segment a.nii --bundle b --output o --membrs 4",
        "medsegdiff segment a.nii --bundle b",
        "medsegdiff sgment a.nii",
        "medsegdiff train b --data d --output o --set train#trainer#max_epoch=1",
    ],
)
def test_wrong_commands_would_be_found(line: str) -> None:
    with pytest.raises((typer.TyperException, KeyError, AssertionError)):
        check_line(line)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_within_the_text_exist(page: Path) -> None:
    for words in (
        s.split() for s in re.findall(r"`medsegdiff ([^`\n]+)`", page.read_text("utf-8"))
    ):
        if words[0].isupper():
            continue
        options = {option for p in COMMANDS[words[0]].params for option in p.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= options, words


def test_options_of_the_reference_are_those_of_the_commands() -> None:
    page = DOCS / "reference" / "commands_and_files.md"
    shared = {"--device", "--quiet", "-q", "--verbose", "-v", "--debug", "--trust"}
    for name, command in COMMANDS.items():
        headings = re.findall(rf"^## `medsegdiff {name}.*$", page.read_text("utf-8"), re.M)
        assert len(headings) == 1, name
        keys = table_keys(section(page, headings[0]))
        documented = {key.split()[0] for key in keys if key.startswith("-")} - shared
        exist = {o for p in command.params for o in p.opts if o.startswith("-")} - shared
        assert documented == exist - {"--help", "-h"}, name


@pytest.mark.parametrize("line", shown("python -m monai.bundle run"))
def test_monais_commands_name_keys_that_exist(line: str) -> None:
    words = shlex.split(line)[4:]
    pairs = itertools.pairwise(words)
    options = {word.removeprefix("--"): value for word, value in pairs if word.startswith("--")}
    config = Path(options.pop("config_file")).stem
    bundle = load_bundle(SHIPPED)
    check_keys(bundle.parser(config), options, bundle.config(config))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, link


def test_the_index_leads_to_every_page() -> None:
    index = DOCS / "README.md"
    links = re.findall(r"\]\(([^)\s]+)\)", index.read_text("utf-8"))
    listed = {(DOCS / link).resolve() for link in links}
    assert {page for page in DOCS.rglob("*.md") if page != index} <= listed


@pytest.mark.parametrize(
    "config",
    [
        *(
            "train.yaml",
            "inference.yaml",
            "evaluate.yaml",
            "calibrate.yaml",
            "member_agreement.yaml",
        ),
        "metadata.json",
    ],
)
def test_documented_configuration_keys_exist(config: str) -> None:
    keys = table_keys(section(DOCS / "reference" / "configuration.md", f"## `{config}`"))
    assert len(keys) >= 4
    bundle = load_bundle(SHIPPED)
    described = config == "metadata.json"
    parser = ConfigParser(bundle.metadata) if described else bundle.parser(Path(config).stem)
    check_keys(parser, dict.fromkeys(keys), bundle.root / "configs" / config)


@pytest.fixture
def two_raters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A report on cases with two raters and every file that can be there; no pictures drawn."""
    monkeypatch.setattr(report_module, "case_picture", lambda *of: "data:,")
    manifest = load_manifest(write_cohort(tmp_path / "data", cases=2, size=10, raters=2))
    for case in manifest.cases:
        annotations = [nib.load(path) for path in case.labels]
        stacked = np.stack([np.asarray(image.dataobj) for image in annotations], axis=-1)
        mean = {s: (stacked == v).mean(axis=-1) for v, s in foreground(manifest).items()}
        maps = {"seg": stacked[..., 0], "anchor": stacked[..., 1], "members": stacked}
        maps |= {f"mean_{slug}": m.astype(np.float32) for slug, m in mean.items()}
        maps |= {f"variance_{slug}": (m * (1 - m)).astype(np.float32) for slug, m in mean.items()}
        maps["entropy"] = maps["mean_structure-1"]
        maps |= {f"{k}_{s}": (m > 0.5).astype(np.uint8) for s, m in mean.items() for k in MASKS}
        folder = tmp_path / "out" / case.id
        folder.mkdir(parents=True)
        for name, values in maps.items():
            image = nib.Nifti1Image(values, annotations[0].affine)
            nib.save(image, folder / f"{case.id}_{name}.nii.gz")
        promised = {"volume_ml": [0.0, None]}
        guarantee = {"level": 0.9, "classes": dict.fromkeys(mean, promised)}
        record = {"shape": list(annotations[0].shape), "guarantee": guarantee}
        (folder / f"{case.id}_run.json").write_text(json.dumps(record))
    assert evaluate(tmp_path / "data", tmp_path / "out", tmp_path / "report") == {}
    report: dict[str, Any] = json.loads((tmp_path / "report" / "report.json").read_text())
    return report


def test_documented_metrics_are_those_of_the_report(two_raters: dict[str, Any]) -> None:
    documented = table_keys((DOCS / "reference" / "metrics.md").read_text("utf-8"))
    of_cases = set(two_raters["cases"][0]) - {"case", "patient"}
    assert documented == set(two_raters["summary"]) | of_cases


def test_documented_keys_of_the_report_are_those_it_has(two_raters: dict[str, Any]) -> None:
    text = section(DOCS / "reference" / "commands_and_files.md", "### Keys of `report.json`")
    assert table_keys(text) == set(two_raters)
    (row,) = re.findall(r"^\| `settings` \|(.*)\|$", text, re.M)
    assert set(re.findall(r"`(\w+)`", row)) == set(two_raters["settings"])


def run_line(line: str, folder: Path) -> None:
    """A line of the tutorial: our command in this process, to save its start; others by bash."""
    if line.startswith("medsegdiff "):
        with pytest.raises(SystemExit) as done:
            app(shlex.split(line)[1:])
        assert not done.value.code, line
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-euc", line], cwd=folder, env=environment, check=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all of the tutorial's ``bash`` blocks have run, in their order."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for block in blocks(TUTORIAL, "bash"):
            for line in block.splitlines():
                run_line(line, folder)
    yield folder


def test_the_tutorial_makes_the_small_bundle(study: Path) -> None:
    shipped = load_bundle(SHIPPED).root / "configs"
    small = study / "phantom_mr" / "configs"
    train, inference = ((small / f"{n}.yaml").read_text() for n in ("train", "inference"))
    assert "channels: [8, 16, 16, 32]" in inference and "channels: [8, 16, 16]\n" in inference
    assert "patch_size: [16, 16, 16]\n" in train and "expected_mm: []\n" in inference
    before, after = (json.loads((d / "metadata.json").read_text()) for d in (shipped, small))
    assert before != after and load_bundle(study / "phantom_mr").labels[1] == "Structure 1"


def test_the_tutorials_cases_are_those_that_were_held_out(study: Path) -> None:
    held_out = json.loads((study / "runs" / "longer" / "cases.json").read_text())["validation"]
    segmented = sorted(path.name for path in (study / "out").iterdir() if path.is_dir())
    assert segmented == held_out
    assert (study / "out" / "phantom_006" / "phantom_006_seg.seg.nrrd").is_file()


def test_the_tutorial_ends_in_a_report_and_two_runs(study: Path) -> None:
    report = json.loads((study / "report" / "report.json").read_text())
    assert report["summary"]["n_cases"] == 2 and report["failures"] == {}
    assert report["summary"]["ece_roi"]["mean"] is not None  # the names of the classes agree
    client = mlflow.MlflowClient(f"sqlite:///{study}/mlruns.db")
    experiment = client.get_experiment_by_name("phantom_mr")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"short-fold0", "longer-fold0"}
    assert all({"train_loss", "val_mean_dice"} <= set(run.data.metrics) for run in runs)


def test_documented_files_and_keys_of_a_case_are_those_it_has(study: Path) -> None:
    page = DOCS / "reference" / "commands_and_files.md"
    case = study / "out" / "phantom_006"
    record = json.loads((case / "phantom_006_run.json").read_text())
    assert table_keys(section(page, "### Keys of `<case>_run.json`")) == set(record)
    names = {n for n in table_keys(section(page, "## `medsegdiff segment INPUT...`")) if "<" in n}
    patterns = [n.replace("<case>", "phantom_006").replace("<class>", "*") for n in names]
    written = {path for pattern in patterns for path in case.glob(pattern)}
    assert written == set(case.iterdir())
    missing = {name for name, p in zip(names, patterns, strict=True) if not any(case.glob(p))}
    promised = {f"<case>_{kind}_<class>.nii.gz" for kind in MASKS}  # with --guarantee alone
    dicom = {"<case>_seg.dcm", "<case>_mean.dcm", "<case>_variance_<class>.dcm"}
    dicom.add("<case>_capture_<n>.dcm")
    assert missing == dicom | promised  # the former for DICOM input alone


def test_documented_files_of_a_run_are_those_it_leaves(study: Path) -> None:
    text = section(DOCS / "reference" / "commands_and_files.md", "## `medsegdiff train BUNDLE`")
    keys = {key for key in table_keys(text) if "." in key}
    files = {key.replace("=N", f"={epoch}") for key in keys for epoch in (11, 12)}
    assert files == {path.name for path in (study / "runs" / "longer").iterdir()}
