"""Series of a study as channels, by words of their descriptions."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom import Series, by_study, case_id, choose_channels


def series(number: int, description: str, part: str = "", study: str = "1") -> Series:
    return Series(
        (Path("a"),), study, f"{study}.{number}", number, description, "MR", "DOE", "in", part
    )


STUDY = [series(1, "T1"), series(2, "T1 post"), series(3, "FLAIR_reg"), series(4, "GRE", "TE 5 ms"),
         series(4, "GRE", "TE 9 ms")]  # fmt: skip


def test_in_the_order_of_the_words() -> None:
    chosen = choose_channels(STUDY, ["flair", "t1", "POST", "gre te 9 ms"], "in")
    assert [STUDY.index(one) for one in chosen] == [2, 0, 1, 4]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["T2"], "'T2' has to fit one series, but fits none"),
        (["GRE"], "'GRE' has to fit one series, but fits 2"),
        (["post", "T1 post"], "fit the same series"),
    ],
)
def test_errors_list_what_there_is(words: list[str], rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        choose_channels(STUDY, words, "in")
    listed = "1 (T1), 2 (T1 post), 3 (FLAIR_reg), 4 (GRE TE 5 ms), 4 (GRE TE 9 ms)"
    assert listed in str(caught.value) and "DOE" not in str(caught.value)


def test_studies_stay_apart() -> None:
    found = by_study([series(1, "a"), series(1, "a", study="2"), series(2, "b")])
    assert [[one.uid for one in study] for study in found] == [["1.1", "1.2"], ["2.1"]]


def test_case_id_is_that_of_all_channels() -> None:
    ids = {case_id(STUDY[:2], "s"), case_id(STUDY[:3], "s"), case_id(STUDY[0], "s")}
    assert len(ids) == 3
    assert case_id([STUDY[0]], "s") == case_id(STUDY[0], "s")
