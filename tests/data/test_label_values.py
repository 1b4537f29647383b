from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.label_values import parse_label_values, renumber
from medsegdiff.data.transforms import LoadCased
from tests.conftest import MakeNifti

FILE = Path("dataset.json")


def test_values_and_ranges() -> None:
    found = parse_label_values({"128-255": 1, "0-127": 0}, [0, 1], FILE)
    assert found == ((0, 127, 0), (128, 255, 1))
    assert parse_label_values(None, [0, 1], FILE) == ()


@pytest.mark.parametrize(
    "value",
    [
        [255],
        {"white": 1},
        {"255": 2},
        {"255": "1"},
        {"255": True},
        {"-1": 1},
        {"0-5": 0, "5-9": 1},
        {"9-0": 0},
    ],
)
def test_what_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="label_values"):
        parse_label_values(value, [0, 1], FILE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_renumbering_agrees_with_a_table(dtype: type) -> None:
    values = np.random.default_rng(0).choice([0, 1, 2, 4], (5, 6, 7))
    found = renumber(values.astype(dtype), ((0, 0, 0), (1, 1, 1), (2, 2, 2), (4, 4, 3)), "seg")
    np.testing.assert_array_equal(found, np.array([0, 1, 2, -1, 3])[values])


def test_ranges_and_large_numbers() -> None:
    ranges = ((0, 0, 0), (1, 99, 1), (2**21, 2**40, 2))
    values = np.array([[0, 1, 57], [99, 2**21, 2**40]])
    np.testing.assert_array_equal(renumber(values, ranges, "seg"), [[0, 1, 1], [1, 2, 2]])
    np.testing.assert_array_equal(renumber(values[:1], ranges, "seg"), [[0, 1, 1]])
    assert renumber(values[:0], ranges, "seg").shape == (0, 3)
    with pytest.raises(InputError, match=r"\[-1, 100\]"):
        renumber(np.array([0, -1, 100, 5]), ranges, "seg")


@pytest.mark.parametrize("odd", [3.0, 0.5, np.nan])
def test_value_that_is_not_named(odd: float) -> None:
    with pytest.raises(InputError, match="not among the 'label_values'"):
        renumber(np.array([0, odd]), ((0, 0, 0), (255, 255, 1)), "seg")


def test_loading_applies_and_forgets_them(make_nifti: MakeNifti) -> None:
    image = make_nifti("a.nii.gz", shape=(4, 3, 2))
    label = make_nifti("l.nii.gz", array=np.full((4, 3, 2), 255, dtype=np.uint8))
    item = {"image": [image], "label": [label], "label_values": ((0, 0, 0), (255, 255, 1))}
    loaded = LoadCased(labels=[0, 1])(item)
    assert (loaded["label"] == 1).all()
    assert "label_values" not in loaded and "label_values" in item
