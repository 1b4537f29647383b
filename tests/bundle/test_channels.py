"""The names of the image's channels, as the metadata have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medsegdiff.bundle.bundle import Bundle, load_bundle


def with_inputs(root: Path, inputs: Any) -> Bundle:
    outputs = {"pred": {"channel_def": {"0": "background", "1": "lesion"}}}
    described = {"network_data_format": {"inputs": inputs, "outputs": outputs}}
    (root / "configs").mkdir()
    (root / "configs" / "metadata.json").write_text(json.dumps(described))
    return Bundle(root)


def test_they_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    named = {str(n): f"b{n}" for n in (10, 2, 0, 1)}
    bundle = with_inputs(tmp_path, {"image": {"channel_def": named}})
    assert bundle.channels == ("b0", "b1", "b2", "b10")
    assert len(load_bundle("hippocampus_mr").channels) == 1


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        {},
        {"image": None},
        {"image": {"channel_def": ["t1"]}},
        {"image": {"channel_def": {"t1": 0}}},
    ],
)
def test_without_names_there_are_none(tmp_path: Path, inputs: Any) -> None:
    assert with_inputs(tmp_path, inputs).channels == ()
