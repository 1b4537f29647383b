"""The ablation's command: every variant trains and is judged; what is done is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import ablation
from medsegdiff.phantoms.cohort import write_cohort

QUICK = ["--planes", "--minutes", "1", "--max-steps", "1", "--cases", "1", "--members", "2"]


@pytest.fixture(scope="module")
def two_raters(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("two_raters")
    return str(write_cohort(folder, cases=5, size=16, classes=1, raters=2))


def run(data: str, output: Path, *words: str) -> list[dict[str, Any]]:
    command = ["--data", data, "--output", str(output), *QUICK, *words]
    return ablation.main(command, {"patch_size": [16, 16]})


@pytest.mark.long
def test_every_variant_is_trained_and_judged_once(two_raters: str, tmp_path: Path) -> None:
    rows = run(two_raters, tmp_path, "--seeds", "1")
    groups = {**ablation.SAMPLED, **ablation.TRAINED}
    named = [variant for variants in groups.values() for variant in variants]
    assert [row["variant"] for row in rows] == [ablation.DEFAULT, *named]
    for row in rows:
        assert 0.0 <= row["dice"] <= 1.0 and 0.0 <= row["ged2"] <= 2.0
        assert row["training_steps"] == 1 and row["cases"] == 1
    by_name = {row["variant"]: row for row in rows}
    assert by_name["8 members"]["members"] == 8 and by_name["10 steps"]["steps"] == 10
    page = (tmp_path / "ablation_phantom3d_planes.md").read_text("utf-8")
    assert all(name.replace("|", r"\|") in page for name in (*named, *groups))
    again = run(two_raters, tmp_path, "--seeds", "1")
    assert again == rows  # kept, with the figures of the first call


def test_unknown_groups_are_refused(
    two_raters: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(two_raters, tmp_path, "--groups", "colours")
    assert "'colours' is none of modules" in capsys.readouterr().err


def row(variant: str, seed: int, dice: float) -> dict[str, Any]:
    return {
        "group": "" if variant == ablation.DEFAULT else "modules",
        "variant": variant,
        "seed": seed,
        "dataset": "a",
        "dice": dice,
        **dict.fromkeys(("ged2", "hm_iou", "ece")),
        **dict.fromkeys(("minutes", "cases", "steps", "members", "training_steps"), 1),
        "command": "the command",
    }


def test_the_page_compares_with_the_default_of_the_same_seed() -> None:
    variant = "without FF-Parser"
    rows = [row(ablation.DEFAULT, 0, 0.5), row(ablation.DEFAULT, 1, 0.7)]
    rows += [row(variant, 0, 0.6), row(variant, 1, 0.9)]
    text = ablation.page(rows)
    assert f"| {ablation.DEFAULT} | 0.600 | 2 | 1 |" in text
    assert f"| {variant} | 0.750 (+0.150 ± 0.071) | 2 | 1 |" in text
    assert "GED" not in text  # not of one rater
