"""What a calibration promises at a level, and its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.calibration.conformal import THRESHOLDS
from medsegdiff.calibration.fitted import Calibration, read_calibration
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import InputError
from medsegdiff.triage.triage import Triage

LABELS = {0: "background", 1: "lesion"}


def one(missed: np.ndarray, wrong: np.ndarray, n: int = 100) -> Calibration:
    return Calibration(
        "vector",
        Scaling((1.2, 0.9), (0.0, 0.3)),
        n,
        {"lesion": tuple(missed.tolist())},
        {"lesion": tuple(wrong.tolist())},
        {"lesion": tuple(np.linspace(0.0, 1.0, n).tolist())},
        {"data": "some", "cases": n},
    )


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.985])
@pytest.mark.parametrize("good", [0.01, 0.2, 1.0])
def test_the_inner_mask_lies_within_the_outer_one(level: float, good: float) -> None:
    found = one(good * THRESHOLDS, good * (1 - THRESHOLDS)).guarantee(level)["lesion"]
    assert found.inner is None or found.outer <= found.inner
    inner, outer = found.masks(np.random.default_rng(0).random((6, 7)))
    assert (outer >= inner).all()


def test_masks_that_cross_become_one_by_a_wider_outer_mask() -> None:
    found = one(0.01 * THRESHOLDS, 0.01 * (1 - THRESHOLDS)).guarantee(0.9)["lesion"]
    assert found.outer == found.inner == THRESHOLDS[0]


def test_a_level_out_of_reach_is_told() -> None:
    few = one(0.0 * THRESHOLDS, 0.0 * THRESHOLDS, n=10)
    assert few.limits(0.9) == []
    said = few.limits(0.95)
    assert len(said) == 3 and all("10 cases" in text and "lesion" in text for text in said)
    found = few.guarantee(0.95)["lesion"]
    assert found.vacuous == ("outer", "inner", "volume")
    assert few.guarantee(0.9)["lesion"].vacuous == ()
    inner, outer = found.masks(np.array([0.0, 1.0]))
    assert not inner.any() and outer.all() and found.volume(np.ones(3)) == (0.0, None)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    given = one(THRESHOLDS, 1 - THRESHOLDS)
    write_json(tmp_path / "c.json", given.to_json())
    assert read_calibration(tmp_path / "c.json", LABELS) == given


@pytest.mark.parametrize(
    "damage",
    [
        {"temperature": None},
        {"temperature": [1.0, 1.0, 1.0]},
        {"missed": {"other": [0.0] * 199}},
        {"thresholds": [0.5]},
        {"n": "many"},
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, damage: dict) -> None:
    content = one(THRESHOLDS, THRESHOLDS).to_json() | damage
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"c\.json.*medsegdiff calibrate again"):
        read_calibration(tmp_path / "c.json", LABELS)
    with pytest.raises(InputError):
        read_calibration(tmp_path / "missing.json", LABELS)


def test_all_of_a_file_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = one(THRESHOLDS, 1 - THRESHOLDS)
    given = replace(given, largest_shift=0.25, checked={"splits": 3})
    content = given.to_json()
    assert content["triage"] is None
    asked: Any = []
    monkeypatch.setattr(Triage, "from_json", lambda told: asked.append(told) or "triage")
    write_json(tmp_path / "c.json", content | {"triage": {"some": 1}})
    found = read_calibration(tmp_path / "c.json", LABELS)
    assert found == replace(given, triage="triage") and asked == [{"some": 1}]  # type: ignore[arg-type]
    del content["triage"]  # of an older version
    write_json(tmp_path / "c.json", content)
    assert read_calibration(tmp_path / "c.json", LABELS) == given and len(asked) == 1


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ({"temperature": None}, "cannot be read as a calibration"),
        ({"bias": [0.0]}, "is not of the classes lesion"),
        ({"missed": {"other": [0.0] * 199}}, "is not of the classes lesion"),
    ],
)
def test_a_damaged_file_is_told_with_the_remedy(
    tmp_path: Path, damage: dict[str, object], rule: str
) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(one(THRESHOLDS, THRESHOLDS).to_json() | damage))
    with pytest.raises(InputError) as told:
        read_calibration(path, LABELS)
    assert str(told.value) == f"{path}: {rule}. Remove it, or run medsegdiff calibrate again"
