"""Bounds with a setting: what is beyond them is refused, and the remedy works."""

from __future__ import annotations

import re

import pytest

from medsegdiff.core import limits
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.limits import INFLATION, SIZE, check_inflation, check_size

GIB = 2**30


def followed(error: InputError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does what the remedy says."""
    found = re.search(r"set (MEDSEGDIFF_\w+) to a greater number", error.remedy)
    assert found
    monkeypatch.setenv(found[1], "1e12")


def test_an_absurd_size_is_refused_until_the_limit_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_size("a", 2**20)
    with pytest.raises(InputError, match=r"would take 1.049e\+06 GiB") as caught:
        check_size("a", 2**50)
    followed(caught.value, monkeypatch)
    check_size("a", 2**50)


def test_only_what_is_large_and_inflates_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_inflation("a", 10, GIB)  # a mask is all zeros
    check_inflation("a", GIB, 100 * GIB)  # large, but so is the file
    with pytest.raises(InputError, match=r"becomes 3 GiB or more.*1024 times") as caught:
        check_inflation("a", 3 * 2**20, 3 * GIB)
    followed(caught.value, monkeypatch)
    check_inflation("a", 3 * 2**20, 3 * GIB)


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan"])
def test_a_setting_that_is_no_bound_is_wrong_usage(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INFLATION.variable, value)
    with pytest.raises(UsageError, match=INFLATION.variable):
        _ = INFLATION.value


def test_without_a_setting_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SIZE.variable, raising=False)
    monkeypatch.setattr(limits.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**22}.get)
    assert SIZE.value == 8
