from __future__ import annotations

import logging

import pytest

from medsegdiff.cli.common import closest, parse_overrides, progress, set_up
from medsegdiff.core.errors import UsageError


def test_override_values_are_literals_or_texts() -> None:
    settings = ["a#b#0=1e-3", "c=[1, 2]", "d=true", "e=None", "f=x=y", "g='1'", "h=$@net", "i="]
    assert parse_overrides(settings) == {
        "a#b#0": 1e-3,
        "c": [1, 2],
        "d": True,
        "e": None,
        "f": "x=y",
        "g": "1",
        "h": "$@net",
        "i": "",
    }


@pytest.mark.parametrize("setting", ["epochs", "=5", " =5"])
def test_an_override_without_key_is_wrong_usage(setting: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        parse_overrides([setting])


def test_closest() -> None:
    assert closest("hipocampus", ["hippocampus_mr", "lidc"]) == "Did you mean hippocampus_mr?"
    assert closest("x", ["b", "a"]) == "Known are a, b"


@pytest.mark.parametrize(
    ("quiet", "verbose", "level"),
    [(True, False, logging.WARNING), (False, False, logging.INFO), (False, True, logging.DEBUG)],
)
def test_talkativeness(
    quiet: bool, verbose: bool, level: int, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(quiet, verbose)
    assert logging.getLogger("medsegdiff").level == level
    assert list(progress("counting")(range(3))) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    if quiet:
        assert captured.err == ""
