"""Parts of the cases, as for the jobs of an array."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cases.job import segment
from medsegdiff.cases.part import Part, part
from medsegdiff.core.errors import UsageError
from medsegdiff.core.folder_lock import folder_lock
from medsegdiff.core.tables import csv_rows
from medsegdiff.data.case_input import CaseInput
from tests.cases.test_segmenter import OBLIQUE, image_file


@given(st.integers(0, 40), st.integers(1, 12))
def test_together_the_parts_have_each_case_once(cases: int, of: int) -> None:
    known = [CaseInput(str(n), ()) for n in range(cases)]
    parts = [Part(number, of)(known) for number in range(of)]
    assert sorted((case.id for one in parts for case in one), key=int) == [c.id for c in known]
    sizes = [len(one) for one in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "number, of, match",
    [
        (0, None, "go together"),
        (None, 2, "go together"),
        (2, 2, "between 0 and 1"),
        (-1, 2, "between 0 and 1"),
        (0, 0, "must be 1 or more"),
    ],
)
def test_parts_that_there_are_not(number: int | None, of: int | None, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        part(number, of)
    assert part(None, None) is None


def test_parts_share_one_folder_page_and_table(bundle: Bundle, tmp_path: Path) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in "abc":
        image_file(scans, OBLIQUE, f"{name}.nii.gz")
    (scans / "d.nii.gz").write_bytes(b"no image")
    told: list[str] = []
    for number in range(2):
        failures = segment(
            [scans],
            bundle,
            output,
            members=2,
            steps=1,
            device="cpu",
            part=Part(number, 2),
            tell=lambda case, error: told.append(case),
        )
        assert set(failures) == ({"d"} if number else set())
    assert sorted(told) == ["a", "b", "c", "d"]
    assert {p.name for p in output.iterdir() if p.is_dir()} == {"a", "b", "c"}
    assert set(json.loads((output / "failures.json").read_text())) == {"d"}
    header, *rows = csv_rows((output / "cohort.csv").read_text())
    assert [row[0] for row in rows] == ["a", "b", "c", "d"]
    assert "anterior_ml_low" in header and rows[3][header.index("error")] != ""
    page = (output / "report.html").read_text()
    assert all(f">{name}<" in page or f"{name}_" in page or name in page for name in "abc")
    # of other settings, complete cases fail, and are not told as done
    segment([scans], bundle, output, members=3, steps=1, device="cpu", part=Part(0, 2))
    _, *rows = csv_rows((output / "cohort.csv").read_text())
    assert sorted((row[0], row[1] == "") for row in rows) == [
        *(("a", False), ("b", True), ("c", False), ("d", False)),
    ]
    # done again, a part keeps what the other one told
    segment([scans], bundle, output, members=2, steps=1, device="cpu", part=Part(0, 2))
    assert set(json.loads((output / "failures.json").read_text())) == {"d"}
    assert [r[0] for r in csv_rows((output / "cohort.csv").read_text())[1:]] == ["a", "b", "c", "d"]


def test_a_folder_is_one_processs_at_a_time(tmp_path: Path) -> None:
    other = (
        "import sys, time; from pathlib import Path\n"
        "from medsegdiff.core.folder_lock import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])): Path(sys.argv[1], 'there').touch()\n"
    )
    with folder_lock(tmp_path):
        process = subprocess.Popen([sys.executable, "-c", other, str(tmp_path)])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        assert not (tmp_path / "there").exists()
    assert process.wait(timeout=60) == 0 and (tmp_path / "there").exists()
