"""The sentences of a report, word by word, at the figures where they change."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest

from medsegdiff.evaluation.wording import sentences
from tests.evaluation.small_reports import bins, rated, report


def told_of(**summary: Any) -> list[str]:
    return sentences(report(**summary))


OVERLAP = (
    "On 20 cases of 10 patients the masks overlap with the reference by a mean Dice of 0.900"
    " (95 % interval over patients 0.850 to 0.950); 1 would be perfect."
)


def test_all_sentences_of_a_report_in_their_order() -> None:
    other = {"dice": {"mean": 0.88}, "ensemble_gain": 0.02, "n_cases": 20}
    triage = {
        "n_cases": 20,
        "fitted": 3,
        "unlike": 0.25,
        "rank_correlation_of_score": 0.7,
    }
    given = rated([(0.2, 0.2), (0.4, 0.4), (0.6, 0.6)])
    given["summary"] |= {"members": other, "anchor": other, "triage": triage, "n_fitted": 2}
    assert sentences(given) == [
        OVERLAP,
        "Head: where the model says 80 % it is right 80 % of the time (about right); "
        "near the structure its probabilities are off by 10.0 points on average.",
        "A wrong voxel has more variance than a right one in 95 % of pairs: "
        "high variance points well to errors: check those voxels first.",
        "Members differ from each other about as much as raters do: by 0.40 against 0.40 "
        "(mean 1 − IoU) on 3 cases. The cases where members differ are mostly those where raters "
        "do (correlation 1.00).",
        "The ensemble is better than the mean of its members: mean Dice 0.900 against 0.880 "
        "on 20 cases.",
        "The ensemble is better than the single deterministic pass: mean Dice 0.900 against 0.880 "
        "on 20 cases.",
        "The calibration was fitted on 2 of these cases: their figures of calibration and "
        "guarantee are too good. Only cases that it has not seen can confirm them.",
        "The score by which cases are ordered for review tells the poor cases well: its rank "
        "correlation with the lowest Dice of a case is 0.70 on 20 cases, 3 of which it was fitted "
        "on. 25 % of the cases were said to be unlike the training.",
    ]


@pytest.mark.parametrize(("n", "few"), [(9, True), (10, False)])
def test_few_cases_are_a_check_and_no_proof(n: int, few: bool) -> None:
    assert told_of(n_cases=n)[0] == OVERLAP.replace("20 cases", f"{n} cases") + few * (
        " So few cases say little about others: read the figures as a check, not a proof."
    )


def test_one_case_of_one_patient_has_no_interval() -> None:
    undefined = {"dice": {"mean": [nan, nan]}}
    assert told_of(n_cases=1, n_patients=1, confidence_95=undefined)[0].startswith(
        "On 1 case of 1 patient the masks overlap with the reference by a mean Dice of 0.900; 1 "
    )


@pytest.mark.parametrize(
    ("observed", "judged"),
    [
        (0.7501, "about right"),
        (0.7499, "too bold"),
        (0.8499, "about right"),
        (0.8501, "too timid"),
    ],
)
def test_five_points_apart_is_not_about_right(observed: float, judged: str) -> None:
    (sentence,) = (s for s in told_of(reliability={"a": {"roi": bins(observed)}}) if "Head" in s)
    assert f"({judged}); near the structure its prob" in sentence


def test_only_the_bins_next_to_80_per_cent_count_by_their_voxels() -> None:
    roi = bins(0.0)
    # of 15 bins, those from 11 / 15 to 13 / 15 are as near as one width; their centres 0.767, 0.833
    roi["count"], roi["frequency"] = [1] * 15, [0.0] * 15
    roi["count"][11:13], roi["frequency"][11:13] = [30, 10], [0.6, 1.0]
    (sentence,) = (s for s in told_of(reliability={"a": {"roi": roi}}) if "Head" in s)
    assert sentence.startswith("Head: where the model says 78 % it is right 70 % of the time")
    for b in (11, 12):
        roi["count"][b], roi["confidence"][b], roi["frequency"][b] = 0, nan, nan
    (sentence,) = (s for s in told_of(reliability={"a": {"roi": roi}}) if "Head" in s)
    assert sentence == (
        "Head: near the structure its probabilities are off by 10.0 points on average."
    )


@pytest.mark.parametrize(
    ("auroc", "use"),
    [
        (0.69, "the variance is no guide to errors here"),
        (0.7, "high variance is a hint at an error"),
        (0.899, "high variance is a hint at an error"),
        (0.9, "high variance points well to errors: check those voxels first"),
    ],
)
def test_what_the_variance_is_good_for(auroc: float, use: str) -> None:
    found = [s for s in told_of(uncertainty_error_auroc={"mean": auroc}) if "variance" in s]
    share = f"{100 * auroc:.0f} %"
    assert found == [
        f"A wrong voxel has more variance than a right one in {share} of pairs: {use}."
    ]
    assert not any("variance" in s for s in told_of(uncertainty_error_auroc={"mean": nan}))


@pytest.mark.parametrize(
    ("members", "judged"),
    [
        (0.39, "less than"),
        (0.41, "about as much as"),
        (0.62, "about as much as"),
        (0.63, "more than"),
    ],
)
def test_a_fifth_less_or_a_quarter_more_than_raters(members: float, judged: str) -> None:
    given = rated([(0.5, members), (0.5, members)])
    (sentence,) = (s for s in sentences(given) if s.startswith("Members"))
    assert sentence == (
        f"Members differ from each other {judged} raters do: by {members:.2f} against 0.50 "
        "(mean 1 − IoU) on 2 cases."
    )


@pytest.mark.parametrize(
    ("last", "follows"),
    [
        (0.2, "say little about where raters do (correlation -0.50)"),
        (0.5, "are to some extent those where raters do (correlation 0.50)"),
        (0.9, "are mostly those where raters do (correlation 0.99)"),
    ],
)
def test_whether_members_differ_where_raters_do(last: float, follows: str) -> None:
    given = rated([(0.2, 0.4), (0.4, 0.6), (0.6, last)])
    (sentence,) = (s for s in sentences(given) if s.startswith("Members"))
    assert sentence.endswith(f"The cases where members differ {follows}.")


def study(**changed: Any) -> dict[str, Any]:
    """A report of a study of two networks on two classes."""
    found = report(dice={"mean": 0.9, "a": 0.95, "b": 0.85}, reliability={})
    found["settings"]["labels"] = {"a": "Head", "b": "Tail"}
    found["cases"] = [{"dice": {"mean": dice}} for dice in (0.49, 0.5, 0.2)]
    run = {"training_cases": 16, "epochs": 90}
    found["training"] = [run, {"training_cases": 15, "epochs": 120}]
    return found | {"calibration": {"reason": "why"}} | changed


def test_the_sentences_of_a_study() -> None:
    assert sentences(study())[1:4] == [
        "Every case was segmented by a network that had not seen it: 2 networks, each trained on "
        "15 cases or more.",
        "Calibration: why.",
        "What limits: Tail overlaps least (0.850); the masks of 2 cases overlap by less than 0.5; "
        "the training took 120 epochs at most.",
    ]


def test_what_does_not_limit_a_study_is_not_told() -> None:
    run = {"training_cases": 1, "epochs": None}
    one = study(training=[run], calibration=None, cases=[{"dice": {"mean": 0.9}}])
    assert sentences(one)[1:3] == [
        "Every case was segmented by a network that had not seen it: 1 network, each trained on "
        "1 case or more.",
        "What limits: Tail overlaps least (0.850).",
    ]
    one["settings"]["labels"] = {"a": "Head"}
    assert not any("What limits" in sentence for sentence in sentences(one))


def test_a_class_whose_dice_is_undefined_is_not_the_hardest() -> None:
    found = study()
    found["summary"]["dice"]["b"] = nan
    assert any("What limits: Head overlaps least (0.950);" in one for one in sentences(found))
