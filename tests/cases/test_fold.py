"""A fold's held-out cases, segmented by a bundle."""

from pathlib import Path

import pytest

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cases.fold import segment_fold
from medsegdiff.core.errors import UsageError
from medsegdiff.data.manifest import load_manifest


def test_the_held_out_cases_are_segmented(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    few = {"members": 2, "steps": 1}
    for fold in (0, 1):
        assert segment_fold(bundle.root, cohort, tmp_path / str(fold), fold, few) == {}
        written = {path.name for path in (tmp_path / str(fold)).iterdir() if path.is_dir()}
        assert written == {case.id for case in load_manifest(cohort).split(fold)[1]}
    with pytest.raises(UsageError, match="Did you mean members"):
        segment_fold(bundle.root, cohort, tmp_path, 0, {"membrs": 2})
