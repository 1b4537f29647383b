"""What a record and its warnings tell of a case, on segmented phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medsegdiff.cases.overview import review_order
from medsegdiff.cases.triaged import in_words


def test_reasons_name_classes_and_quantiles() -> None:
    slugs = [f"class_{n}" for n in range(12)]
    assert in_words("agreement on class 11 is 2.0 deviations lower", slugs).startswith(
        "agreement on class_10 is"
    )
    told = in_words("difference at 2 of channel 3 is 2.0 deviations higher", slugs)
    assert told == "the mean difference of voxels 2 apart (channel 3) is 2.0 deviations higher"


def record(score: float | None, p: float | None) -> dict[str, Any]:
    return {
        "review": None if score is None else {"score": score},
        "unlike_training": None if p is None else {"p_value": p},
    }


def test_the_cases_to_look_at_come_first() -> None:
    given = [record(0.8, 0.5), record(None, None), record(0.3, 0.4), record(0.8, 0.01)]
    order = sorted(range(4), key=lambda i: review_order(given[i]))
    assert order == [2, 3, 0, 1]
    assert review_order({}) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["hippocampus_mr", "lung_nodule_ct"])
def test_shipped_calibrations_can_tell(name: str) -> None:
    from medsegdiff.bundle.bundle import load_bundle
    from medsegdiff.calibration.application import read_bundle_calibration

    bundle = load_bundle(name)
    fitted = read_bundle_calibration(bundle)
    assert fitted is not None and fitted.triage is not None
    assert fitted.triage.familiarity is not None and fitted.triage.dice
    content = json.loads(Path(bundle.root / "models" / "calibration.json").read_text())
    assert content["triage"]["checked"]["flagged"] <= 0.06
