"""What a calibration says of a case that it is applied to, word by word and figure by figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.bundle.bundle import CALIBRATION
from medsegdiff.calibration.application import (
    calibration_record,
    calibration_warnings,
    chosen_calibration,
    guarantee_record,
    input_id,
    read_bundle_calibration,
    shift_warnings,
)
from medsegdiff.calibration.fitted import ClassGuarantee
from medsegdiff.core.errors import InputError, UsageError
from tests.calibration.small_fits import LABELS, SLUGS, small_bundle, small_calibration


def test_a_bundle_has_the_calibration_of_its_weights(tmp_path: Path) -> None:
    assert read_bundle_calibration(small_bundle(tmp_path / "without")) is None
    bundle = small_bundle(tmp_path / "with", small_calibration())
    found = read_bundle_calibration(bundle)
    assert found is not None and found.scaling == small_calibration().scaling
    assert found.fitted_on["weights_hash"] == bundle.weights_hash()


def test_a_calibration_of_other_weights_names_its_file_and_the_remedy(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "a", small_calibration())
    (bundle.root / "models" / "model.pt").write_bytes(b"other")
    with pytest.raises(InputError) as told:
        read_bundle_calibration(bundle)
    assert str(told.value) == (
        f"{bundle.root / CALIBRATION}: was fitted to other weights than the bundle has. "
        "Remove it, or run medsegdiff calibrate on masks of these weights"
    )


def test_a_calibration_of_other_classes_is_refused(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "a", small_calibration())
    path = bundle.root / CALIBRATION
    content = json.loads(path.read_text())
    content["missed"]["nose"] = content["missed"].pop("tail")
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"is not of the classes head-of-it, tail\. Remove it"):
        read_bundle_calibration(bundle)


def test_a_calibration_is_applied_unless_it_is_switched_off(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "a", small_calibration())
    for level in (None, 0.9):
        found = chosen_calibration(bundle, "auto", level)
        assert found is not None and found.n == 100
    assert chosen_calibration(bundle, "off", None) is None
    assert chosen_calibration(small_bundle(tmp_path / "b"), "auto", None) is None


@pytest.mark.parametrize(
    ("use", "level", "calibrated", "told"),
    [
        (False, None, True, "calibration: must be auto or 'off', not False. Quote 'off' in YAML"),
        ("auto", 0.0, True, "guarantee: must lie between 0 and 1, not be 0.0. Give for instance "),
        ("auto", 1.0, True, "guarantee: must lie between 0 and 1, not be 1.0. Give for instance "),
        (
            "auto",
            0.9,
            False,
            "guarantee: the bundle some_mr has no models/calibration.json. "
            "Run medsegdiff calibrate first",
        ),
        (
            "off",
            0.9,
            True,
            "guarantee: the bundle some_mr is used without calibration. Let calibration be auto",
        ),
    ],
)
def test_what_cannot_be_guaranteed_says_why_and_what_to_do(
    use: Any, level: float | None, calibrated: bool, told: str, tmp_path: Path
) -> None:
    bundle = small_bundle(tmp_path / "some_mr", small_calibration() if calibrated else None)
    with pytest.raises(UsageError) as error:
        chosen_calibration(bundle, use, level)
    assert str(error.value) == told + ("0.95" if told.endswith("instance ") else "")


SETTINGS = {"members": 3, "steps": 4, "seed": 0}


def test_settings_other_than_those_of_the_fit_are_told_one_by_one() -> None:
    fitted = small_calibration(fitted_on={"settings": {"members": 16, "steps": 4, "seed": 7}})
    assert calibration_warnings(fitted, SETTINGS, None) == [
        "the calibration was fitted with members 16, not 3: it need not hold"
    ]  # the seed does not bind
    assert calibration_warnings(fitted, {**SETTINGS, "members": 16}, 0.9) == []
    assert calibration_warnings(small_calibration(fitted_on={}), SETTINGS, None) == []


def test_a_level_that_is_out_of_reach_is_told_of_each_class() -> None:
    few = small_calibration(n=10)
    assert calibration_warnings(few, SETTINGS, None) == []
    assert calibration_warnings(few, SETTINGS, 0.9) == []
    words = ("outer mask of {} but the whole image", "inner mask of {} but an empty one")
    assert calibration_warnings(few, SETTINGS, 0.95) == [
        f"at level 0.95 the 10 cases of the calibration allow no {one.format(slug)}"
        for slug in SLUGS
        for one in (*words, "upper limit of the volume of {}")
    ]


@pytest.mark.parametrize(
    ("model", "told"), [(None, True), ({"network": None}, True), ({"network": "fold 1"}, False)]
)
def test_a_guarantee_of_single_networks_is_an_assumption_for_their_ensemble(
    model: dict[str, Any] | None, told: bool
) -> None:
    fitted = small_calibration(fitted_on={"single_networks": ["a", "b", "c"]})
    found = calibration_warnings(fitted, {**SETTINGS, "model": model}, 0.9)
    assert found == told * [
        "the guarantee was fitted to masks of 3 single networks: that it holds for their ensemble, "
        "or for one network trained on all cases, is an assumption"
    ]
    assert calibration_warnings(fitted, {**SETTINGS, "model": model}, None) == []


@pytest.mark.parametrize(
    ("largest", "shift", "told"),
    [(0.1, 0.15, False), (0.1, 0.16, True), (0.0, 0.05, False), (0.0, 0.06, True)],
)
def test_a_case_is_moved_far_above_half_as_much_again_as_any_other(
    largest: float, shift: float, told: bool
) -> None:
    found = shift_warnings(small_calibration(largest_shift=largest), shift)
    assert found == told * [
        f"the calibration moves {100 * shift:.0f} % of the foreground of this case, more than of "
        f"any of the 100 cases it was fitted on (at most {100 * largest:.0f} %): the case may be "
        "unlike them. Compare with calibration off"
    ]


def test_the_record_says_what_was_applied() -> None:
    found = calibration_record(small_calibration(), "0123456789abcdef" + "0" * 48, 0.25)
    assert found == {
        "method": "vector",
        "temperature": [1.5, 0.9, 1.0],
        "bias": [0.0, 0.3, -0.2],
        "shift": 0.25,
        "data": "some",
        "cases": 100,
        "patients": 99,
        "includes_this_case": True,
    }
    other = calibration_record(small_calibration(fitted_on={}), "0123456789abcdef")
    assert (other["shift"], other["data"], other["includes_this_case"]) == (0.0, None, False)
    assert input_id("0123456789abcdef0") == "0123456789abcdef"


def test_the_record_of_a_guarantee_has_thresholds_and_millilitres() -> None:
    mean = np.zeros((3, 4, 5), np.float32)
    mean[1, 0], mean[2, 1, :2] = 1.0, 0.5
    guarantee = {
        "head-of-it": ClassGuarantee(0.7, 0.2, 0.1, tuple(np.linspace(0.0, 1.0, 19))),
        "tail": ClassGuarantee(None, 0.0, 0.1, (1.0,)),
    }
    found = guarantee_record(mean, 0.5, LABELS, guarantee, 0.9)
    # five certain voxels, and a doubt of 1 voxel; the 18th of the 19 scores is 17 / 18
    margin = 17 / 18
    assert found["level"] == 0.9 and list(found["classes"]) == list(SLUGS)
    head, tail = found["classes"].values()
    assert head["volume_ml"] == pytest.approx([0.5 * (5 - margin), 0.5 * (5 + margin)])
    assert (head["inner_threshold"], head["outer_threshold"], head["vacuous"]) == (0.7, 0.2, [])
    assert tail == {
        "inner_threshold": None,
        "outer_threshold": 0.0,
        "vacuous": ["outer", "inner", "volume"],
        "volume_ml": [0.0, None],
    }
