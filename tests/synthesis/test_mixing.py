"""Synthetic cases beside real ones."""

import json
from collections import Counter
from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.phantoms.cohort import write_cohort
from medsegdiff.synthesis.mixing import mixed_sampler, synthetic_cases


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_is_met_and_each_case_of_a_kind_is_drawn_alike(share: float) -> None:
    sampler = mixed_sampler(8000, 4, share, seed=1)
    assert sampler is not None
    drawn = Counter(min(index, 8000 + index % 4) if index >= 8000 else 0 for index in sampler)
    synthetic = sum(n for index, n in drawn.items() if index >= 8000)
    assert synthetic + drawn[0] == 8000
    assert abs(synthetic / 8000 - share) < 0.02
    if share:
        assert all(abs(drawn[8000 + k] / synthetic - 0.25) < 0.03 for k in range(4))


def test_the_seed_decides_the_order() -> None:
    orders = [list(mixed_sampler(20, 5, 0.5, seed) or []) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_without_synthetic_cases_there_is_nothing_to_mix(tmp_path: Path) -> None:
    manifest = load_manifest(write_cohort(tmp_path, cases=3, size=8))
    assert synthetic_cases(None, manifest) == () and mixed_sampler(3, 0, 0.3) is None


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="synthetic_share"):
        mixed_sampler(3, 3, 1.5)


def test_cases_of_another_kind_and_real_ones_are_refused(tmp_path: Path) -> None:
    manifest = load_manifest(write_cohort(tmp_path / "a", cases=3, size=8))
    with pytest.raises(InputError, match="names cases as"):
        synthetic_cases(tmp_path / "a", manifest)
    write_cohort(tmp_path / "b", cases=3, size=8, classes=3)
    with pytest.raises(InputError, match="labels"):
        synthetic_cases(tmp_path / "b", manifest)


def test_labelled_cases_are_taken(tmp_path: Path) -> None:
    manifest = load_manifest(write_cohort(tmp_path / "a", cases=3, size=8))
    path = write_cohort(tmp_path / "b", cases=3, size=8)
    described = json.loads(path.read_text())
    for number, entry in enumerate(described["training"]):
        entry["case"] = f"new_{number}"
    described["training"][0].pop("label")
    path.write_text(json.dumps(described))
    assert [case.id for case in synthetic_cases(path, manifest)] == ["new_1", "new_2"]
