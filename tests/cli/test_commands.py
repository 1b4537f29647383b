"""Each command hands on what the user typed, and turns what comes back into an exit code."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from medsegdiff.cases.part import Part
from medsegdiff.cli.main import app
from medsegdiff.core.types import Fusion
from medsegdiff.evaluation import folder as evaluation

RUNNER = CliRunner()


class Recorder:
    """Stands for the function behind a command: notes its arguments, returns ``answer``."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        return self.answer


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **functions: Recorder) -> None:
    """Puts a light module in the place of one that loads torch and a model."""
    fake = ModuleType(module)
    vars(fake).update(functions)
    monkeypatch.setitem(sys.modules, module, fake)


def test_train(monkeypatch: pytest.MonkeyPatch, all_is_there: None) -> None:
    train = Recorder()
    stand_in(monkeypatch, "medsegdiff.training.run", train=train)
    line = "train mine --data d --output o --fold 2 --resume --device cpu --set a#b=5 --set c=x"
    assert RUNNER.invoke(app, line.split()).exit_code == 0
    assert train.args == ("mine", "d", Path("o"))
    overrides = {"a#b": 5, "c": "x"}
    assert train.kwargs == {"fold": 2, "resume": True, "device": "cpu", "overrides": overrides}


@pytest.mark.parametrize(("failures", "code"), [({}, 0), ({"3.xml": "is cut off"}, 1)])
def test_convert(monkeypatch: pytest.MonkeyPatch, failures: dict[str, str], code: int) -> None:
    convert = Recorder(failures)
    stand_in(monkeypatch, "medsegdiff.data.public.conversion", convert=convert)
    result = RUNNER.invoke(app, "convert ddti=raw --output new -q".split())
    assert (result.exit_code, convert.args[:2]) == (code, ("ddti=raw", Path("new")))
    assert all(f"{name}: {reason}" in result.stderr for name, reason in failures.items())


def test_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Recorder({})
    stand_in(monkeypatch, "medsegdiff.cases.job", segment=segment)
    line = "segment a.nii b --bundle mine --output o --format nrrd,nifti --steps 3 --save-members"
    line += " --fusion staple --guarantee 0.9 --uneven resample --channels T1,T2"
    line += " --store --key k.csv --set inferer#overlap=0.5"
    result = RUNNER.invoke(app, line.split())
    assert result.exit_code == 0
    assert segment.args == (["a.nii", "b"], "mine", Path("o"))
    assert segment.kwargs == {  # what was not given is left to the bundle
        "steps": 3,
        "fusion": "staple",
        "device": "auto",
        "formats": ["nrrd", "nifti"],
        "save_members": True,
        "guarantee": 0.9,
        "uneven": "resample",
        "channel_series": "T1,T2",
        "inferer#overlap": 0.5,
        "store": "origin",
        "key": Path("k.csv"),
        "part": None,
        "engine": "local",
        **dict.fromkeys(("workers", "address", "tell")),
    }


def test_segment_a_part_of_a_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Recorder({})
    stand_in(monkeypatch, "medsegdiff.cases.job", segment=segment)
    line = "segment a --bundle mine --output o --num-parts 4 --part-id 1 --json"
    line += " --engine ray --workers 2 --address host:6379"
    assert RUNNER.invoke(app, line.split()).exit_code == 0
    given = segment.kwargs
    assert (given["part"], given["engine"]) == (Part(1, 4), "ray")
    assert (given["workers"], given["address"]) == (2, "host:6379")
    assert callable(given["tell"])
    alone = RUNNER.invoke(app, "segment a --bundle mine --output o --part-id 1".split())
    assert alone.exit_code == 2 and "go together" in alone.stderr


@pytest.mark.parametrize(
    ("options", "store"),
    [("", None), ("--store", "origin"), ("--store-to https://a/b", "https://a/b")],
)
def test_segment_stores_where_it_is_told(
    options: str, store: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Recorder({})
    stand_in(monkeypatch, "medsegdiff.cases.job", segment=segment)
    line = f"segment https://a/b/studies/1.2 --bundle mine --output o {options}"
    assert RUNNER.invoke(app, line.split()).exit_code == 0
    assert segment.args[0] == ["https://a/b/studies/1.2"]  # a path would lose a stroke
    assert segment.kwargs["store"] == store


def test_segment_names_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = {"b": "d/b.nii: holds NaN. Export it again", "c.nii": "c.nii: no such file. Check"}
    stand_in(monkeypatch, "medsegdiff.cases.job", segment=Recorder(failures))
    result = RUNNER.invoke(app, "segment a b c --bundle mine --output o -q".split())
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "medsegdiff: failed: b: d/b.nii: holds NaN. Export it again",
        "medsegdiff: failed: c.nii: no such file. Check",
    ]


def test_segment_names_the_rules_of_fusion() -> None:
    result = RUNNER.invoke(app, "segment a --bundle b --output o --fusion median".split())
    assert result.exit_code == 2
    assert all(rule in result.stderr for rule in get_args(Fusion))
    assert "--fusion" in RUNNER.invoke(app, ["segment", "--help"]).stdout


def test_segment_names_the_closest_format() -> None:
    result = RUNNER.invoke(app, "segment a --bundle b --output o --format nifty".split())
    assert result.exit_code == 2
    assert "Did you mean nifti?" in result.stderr


@pytest.mark.parametrize(("failures", "code"), [({}, 0), ({"a": "no prediction"}, 1)])
@pytest.mark.parametrize("written", [True, False], ids=["page", "no page"])
def test_evaluate(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    failures: dict[str, str],
    code: int,
    written: bool,
    all_is_there: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    evaluate = Recorder(failures)
    stand_in(monkeypatch, "medsegdiff.evaluation.folder", evaluate=evaluate)
    if written:
        Path("o").mkdir()
        Path("o/report.html").touch()
    line = "evaluate --data d --predictions p --output o --tolerance-mm 2.5"
    result = RUNNER.invoke(app, line.split())
    assert result.exit_code == code
    assert evaluate.args == ("d", Path("p"), Path("o"))
    assert list(evaluate.kwargs["progress"]("ab")) == ["a", "b"]
    assert evaluate.kwargs["tolerance_mm"] == 2.5
    assert result.stdout.split() == ["o/report.html"] * written


def test_evaluate_tolerates_what_the_function_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, all_is_there: None
) -> None:
    default = inspect.signature(evaluation.evaluate).parameters["tolerance_mm"].default
    evaluate = Recorder({})
    stand_in(monkeypatch, "medsegdiff.evaluation.folder", evaluate=evaluate)
    RUNNER.invoke(app, f"evaluate --data d --predictions {tmp_path} --output o".split())
    assert evaluate.kwargs["tolerance_mm"] == default


def test_demo_prints_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = Recorder([Path("o/left_preview.png"), Path("o/right_preview.png")])
    stand_in(monkeypatch, "medsegdiff.cases.demonstration", demo=demo)
    result = RUNNER.invoke(app, "demo --output o --members 4".split())
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["o/left_preview.png", "o/right_preview.png"]
    assert (demo.args, demo.kwargs) == ((Path("o"),), {"members": 4})


def test_bundles_are_described() -> None:
    result = RUNNER.invoke(app, ["bundles"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for said in (
        "hippocampus_mr",
        "made for",
        "synthesize, train",
        "anterior",
        "posterior",
        "T1-weighted MR",
    ):
        assert said in text
    assert RUNNER.invoke(app, ["bundles", "-q"]).stdout.split() == [
        "heart_mr",
        "hippocampus_label_efficient",
        "hippocampus_mr",
        "hippocampus_synthesis",
        "lung_nodule_ct",
        "phantom_counterfactual",
        "small_text_to_image",
    ]
