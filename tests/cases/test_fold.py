"""A fold's held-out cases, segmented by a bundle."""

import json
from pathlib import Path

import pytest

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cases.fold import segment_fold
from medsegdiff.cases.job import segment
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import Fold, load_manifest


@pytest.mark.parametrize("fold", [0, "test", "all"])
def test_cases_of_a_data_set_are_segmented_by_their_names(
    bundle: Bundle, cohort: Path, tmp_path: Path, fold: Fold
) -> None:
    described = json.loads(cohort.read_text())
    for key in ("image", "label"):
        for entry in described["training"]:
            entry[key] = str(cohort.parent / entry[key])
    for number, entry in enumerate(described["training"]):
        entry["case"] = entry["patient"] = f"named-{number}"
    data = tmp_path / "dataset.json"
    data.write_text(json.dumps(described | {"test_patients": ["named-0"], "folds": None}))
    output = tmp_path / "out"
    assert segment([data], bundle, output, members=2, steps=1, device="cpu", fold=fold) == {}
    expected = {case.id for case in load_manifest(data).held_out(fold)}
    assert {path.name for path in output.iterdir() if path.is_dir()} == expected
    assert expected if fold == "all" else 0 < len(expected) < len(load_manifest(data).cases)


def test_a_fold_that_is_not_there(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not 9"):
        segment([cohort], bundle, tmp_path / "out", fold=9)
    with pytest.raises(InputError, match="keeps no case"):
        segment([cohort], bundle, tmp_path / "out", fold="test")
    with pytest.raises(UsageError, match="one data set"):
        segment([cohort, cohort], bundle, tmp_path / "out", fold=0)


def test_the_held_out_cases_are_segmented(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    few = {"members": 2, "steps": 1}
    for fold in (0, 1):
        assert segment_fold(bundle.root, cohort, tmp_path / str(fold), fold, few) == {}
        written = {path.name for path in (tmp_path / str(fold)).iterdir() if path.is_dir()}
        assert written == {case.id for case in load_manifest(cohort).split(fold)[1]}
    with pytest.raises(UsageError, match="Did you mean members"):
        segment_fold(bundle.root, cohort, tmp_path, 0, {"membrs": 2})
