"""What is checked before a calibration is fitted, and what is told of it afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medsegdiff.bundle.bundle import CALIBRATION
from medsegdiff.calibration import calibrate_bundle
from medsegdiff.calibration.calibrate_bundle import (
    calibrate,
    check_runs,
    checked,
    described,
    fitted_triage,
    summary_lines,
)
from medsegdiff.calibration.predicting_model import PredictingModel
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.calibration.selection import Choice
from medsegdiff.calibration.voxels import CaseVoxels
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.sampling_settings import BINDING
from medsegdiff.data.manifest import load_manifest
from tests.calibration.small_fits import SLUGS, small_bundle, small_calibration, small_case

MODEL = PredictingModel("some_mr", "1.2", SLUGS, "ff", frozenset(["ab", "cd"]))
RUN: dict[str, Any] = {
    "bundle_hash": "ab",
    "input_hash": "0123456789abcdef" + "0" * 48,
    **dict.fromkeys(BINDING, 1),
}


def case(name: str, patient: str | None = None, **run: Any) -> CaseVoxels:
    """Four voxels: background, head, head taken for background, tail."""
    p = [[0.1, 0.8, 0.2, 0.1], [0.0, 0.1, 0.1, 0.7]]
    given: dict[str, Any] = {"weight": [5.0, 1.0, 2.0, 4.0], "run": RUN | run}
    return small_case(p, [0, 1, 1, 2], name=name, patient=patient, **given)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (
            {"method": "platt"},
            "method: must be one of auto, none, temperature, vector, not 'platt'. Choose one",
        ),
        ({"splits": -1}, "splits: must be 0 or more, not -1. Give for instance 200"),
        (
            {},
            "--output: is needed where no bundle keeps the calibration. "
            "Give for instance --output calibration.json",
        ),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_read(
    wanted: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        calibrate(None, tmp_path / "no data", tmp_path / "no predictions", **wanted)
    assert str(error.value) == told


def test_classes_that_are_not_those_of_the_model_are_named(cohort: Path) -> None:
    manifest = load_manifest(cohort)
    with pytest.raises(InputError) as told:
        calibrate_bundle._check_classes(manifest, ["anterior", "posterior"], MODEL)
    assert str(told.value) == (
        f"{manifest.name}: has the classes anterior, posterior, not those of some_mr: "
        "head-of-it, tail. Name the labels of the data set so: head-of-it, tail"
    )
    calibrate_bundle._check_classes(manifest, SLUGS, MODEL)


OTHERS_MODEL = replace(MODEL, identity={"plans": "x"})
ALIKE = "Segment all cases alike, with --calibration off"
ALONE = "Adopt the predictions of one model alone"


@pytest.mark.parametrize(
    ("model", "made_of", "remedy"),
    [
        (MODEL, "the weights and the inference.yaml", ALIKE),
        (OTHERS_MODEL, "the plans and labels", ALONE),
    ],
)
def test_cases_of_another_model_or_of_other_settings_are_named(
    model: PredictingModel, made_of: str, remedy: str
) -> None:
    folder = Path("out")
    check_runs([case("a"), case("b", bundle_hash="cd", seed=3)], model, folder)
    with pytest.raises(InputError) as told:
        check_runs([case("a"), case("b", bundle_hash="ef")], model, folder)
    assert str(told.value) == f"out/b: was not made with {made_of} of some_mr. {remedy}"
    with pytest.raises(InputError) as told:
        check_runs([case("a"), case("b", steps=2, members=3)], model, folder)
    assert str(told.value) == f"out/b: differs from a in steps, members. {remedy}"


def test_the_record_names_images_by_part_of_their_hash(cohort: Path) -> None:
    cases = [case("b", "x", input_hash="b" * 64), case("a", "x", input_hash="a" * 64)]
    found = described(cases, load_manifest(cohort), MODEL)
    assert found == {
        "bundle": "some_mr",
        "bundle_version": "1.2",
        "data": load_manifest(cohort).name,
        "cases": 2,
        "patients": 1,
        "weights_hash": "ff",
        "settings": dict.fromkeys(BINDING, 1),
        "inputs": ["a" * 16, "b" * 16],
    }


CHOICE = Choice("none", "why", {"dice": {"head-of-it": float("nan"), "tail": 2 / 3}})


def test_figures_are_rounded_and_what_is_undefined_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def coverage(*given: Any, **options: Any) -> dict[str, Any]:
        seen.update(options, given=given)
        return {"0.9": {"outer_holds": {"tail": 0.123456789}}}

    monkeypatch.setattr(calibrate_bundle, "split_coverage", coverage)
    cases = [case("a"), case("b")]
    found = checked(cases, SLUGS, CHOICE, 7, iter)
    assert seen == {"given": (cases, SLUGS, "none"), "splits": 7, "progress": iter}
    assert found == {
        "choice": {
            "reason": "why",
            "before": {"dice": {"head-of-it": None, "tail": 0.66667}},
            "candidates": {},
        },
        "splits": 7,
        "share_fitted": 0.8,
        "levels": {"0.9": {"outer_holds": {"tail": 0.12346}}},
    }
    for few, splits in (([case("a"), case("b", "a")], 7), (cases, 0)):
        assert set(checked(few, SLUGS, CHOICE, splits, iter)) == {"choice"}


def test_triage_is_fitted_to_the_weighted_dice_of_the_scaled_masks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(calibrate_bundle, "fit_triage", lambda *a, **b: seen.append((a, b)))
    fitted_triage([case("a", "x", features=[{"f": {}}])], SLUGS, Scaling.identity(3), joined=True)
    ((known,), slugs), options = seen[0]
    assert slugs == SLUGS and options == {"joined": True}
    assert (known.patient, known.places) == ("x", ({"f": {}},))
    # head: 1 voxel of mask, 3 of reference; tail: 4 of both
    assert known.dice == pytest.approx({"head-of-it": 2 * 1 / (1 + 3), "tail": 1.0})
    assert known.present == {"head-of-it": True, "tail": True}
    fitted_triage([case("a", features=[{}])], SLUGS, Scaling((1.0,) * 3, (0.0, 3.0, 0.0)))
    (known,), options = seen[1][0][0], seen[1][1]
    # the bias makes the head of every voxel but the last, where the tail loses as well
    assert known.dice == pytest.approx({"head-of-it": 2 * 3 / (12 + 3), "tail": 0.0})
    assert options == {"joined": False}
    assert fitted_triage([case("a", features=[{}]), case("b")], SLUGS, Scaling.identity(3)) is None
    assert len(seen) == 2


STATED = {
    "outer_holds": {"head-of-it": 0.98765, "tail": None},
    "inner_right": {"head-of-it": 0.9, "tail": 0.95},
    "volume_covered": {"head-of-it": 1.0, "tail": 0.5},
    "outer_vacuous": {"head-of-it": 0.0, "tail": 1.0},
    "inner_vacuous": {"head-of-it": None, "tail": 0.25},
    "volume_vacuous": {"head-of-it": 0.0, "tail": 0.0},
}


def test_the_lines_say_what_was_fitted_and_what_it_reaches() -> None:
    choice = {
        "reason": "It helps",
        "before": {"dice": {"head-of-it": 0.5, "tail": None}},
        "candidates": {"vector": {"after": {"dice": {"head-of-it": 0.55555, "tail": 0.25}}}},
    }
    fitted = small_calibration(checked={"choice": choice, "levels": {"0.9": STATED}})
    assert summary_lines(fitted) == [
        "fitted on 100 cases of 99 patients of some",
        "scaling: vector. It helps",
        "dice on patients left out, vector: head-of-it 0.5000 -> 0.5555, tail undefined -> 0.2500",
        "level 0.9 on patients left out, head-of-it: the outer mask holds 98.8 %; "
        "the inner mask is right in 90.0 %; the volume interval covers 100.0 %",
        "level 0.9 on patients left out, tail: the outer mask holds: nothing can be said (vacuous)"
        "; the inner mask is right in 95.0 % (vacuous in 25 % of cases); "
        "the volume interval covers 50.0 %",
    ]
    assert summary_lines(small_calibration()) == ["fitted on 100 cases of 99 patients of some"]


def test_all_steps_of_a_calibration_are_given_what_they_need(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From the cases that have a prediction to the file; what it cannot guarantee is told."""
    manifest = load_manifest(cohort)
    seen: dict[str, Any] = {}
    slugs = ["anterior", "posterior"]
    model = replace(MODEL, classes=tuple(slugs), singles=("one", "two"))
    bundle = small_bundle(tmp_path / "some_mr")
    choice = Choice("none", "few patients", {})
    fitted = replace(small_calibration(n=10), scaling=Scaling.identity(3))

    def keep(name: str, result: Any) -> Any:
        return lambda *given, **options: seen.update({name: (given, options)}) or result

    monkeypatch.setattr(calibrate_bundle, "matching", keep("matching", (manifest.cases[:2], {})))
    monkeypatch.setattr(calibrate_bundle, "model_of_bundle", keep("model", model))
    monkeypatch.setattr(
        calibrate_bundle, "read_case_voxels", lambda *given: case(given[0].id, features=[given[1]])
    )
    for name, result in {
        "choose_method": choice,
        "fit_calibration": fitted,
        "fitted_triage": None,
        "checked": {"what": 1},
    }.items():
        monkeypatch.setattr(calibrate_bundle, name, keep(name, result))
    told: Any = []
    found = calibrate(
        bundle.root,
        cohort,
        tmp_path / "out",
        singles=[bundle],
        splits=7,
        progress=lambda what: told.append(what) or iter,
    )
    assert told == ["reading", "checking"]
    assert seen["matching"][0][1] == tmp_path / "out"
    assert seen["model"] == ((bundle, [bundle]), {})
    (cases, given_slugs, method), _ = seen["choose_method"]
    assert (given_slugs, method) == (slugs, "auto")
    assert [one.run["features"] for one in cases] == [
        [tmp_path / "out" / one.id] for one in manifest.cases[:2]
    ]
    assert seen["fit_calibration"] == ((cases, slugs, "none"), {})
    assert seen["fitted_triage"] == ((cases, slugs, fitted.scaling), {"joined": True})
    assert seen["checked"] == ((cases, slugs, choice, 7, iter), {})
    assert found.fitted_on == described(cases, manifest, model)
    assert found.checked == {"what": 1} and found.n == 10
    assert json.loads((bundle.root / CALIBRATION).read_text()) == found.to_json()
    assert caplog.messages == ["few patients", *found.limits(0.9), *found.limits(0.95)]
    assert len(found.limits(0.95)) == 6
    caplog.clear()
    calibrate(bundle, cohort, tmp_path / "out", tmp_path / "c.json", method="none", splits=0)
    assert caplog.messages == found.limits(0.95) and (tmp_path / "c.json").is_file()
    assert seen["choose_method"][0][2] == "none" and seen["model"][0] == (bundle, ())
