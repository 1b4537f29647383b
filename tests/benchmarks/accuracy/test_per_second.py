"""The benchmark's command: every contender trains, is timed and judged; rows are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import per_second
from benchmarks.harness import result_table as table
from medsegdiff.phantoms.cohort import write_cohort

QUICK = ["--members", "2", "--rounds", "1", "--images", "1", "--evaluation-minutes", "0"]
TRAINED = ["--minutes", "1", "--max-steps", "2", *QUICK]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_cohort(tmp_path_factory.mktemp("volumes"), cases=5, size=16, classes=2))


@pytest.fixture(scope="module")
def two_raters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Volumes with two raters, to be cut into planes."""
    folder = tmp_path_factory.mktemp("two_raters")
    return str(write_cohort(folder, cases=5, size=16, classes=1, raters=2))


def run(data: str, output: Path, *words: str) -> list[dict[str, Any]]:
    size = [16, 16] if "--planes" in words else [16, 16, 16]
    command = ["--data", data, "--output", str(output), *words]
    return per_second.main(command, {"patch_size": size})


@pytest.fixture(scope="module")
def of_planes(two_raters: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All contenders, on planes: the small nets make it quick."""
    output = tmp_path_factory.mktemp("planes")
    run(two_raters, output, "--planes", *TRAINED)
    rows: list[dict[str, Any]] = json.loads((output / "accuracy_per_second.json").read_text())
    return rows


def test_every_contender_has_a_whole_row(of_planes: list[dict[str, Any]]) -> None:
    assert [row["contender"] for row in of_planes] == list(per_second.CONTENDERS)
    for row in of_planes:
        assert set(table.KEYS) <= set(row)
        assert row["dataset"] == "phantom3d planes"
        for key in ("dice", "ged2", "hm_iou", "ece"):
            assert 0.0 <= row[key] <= (2.0 if key == "ged2" else 1.0), (row["contender"], key)
        assert row["ms_per_image"] > 0 and row["parameters"] > 0 and row["train_seconds"] > 0
        assert row["skipped_steps"] == 0


def test_ratios_are_to_dynunet(of_planes: list[dict[str, Any]]) -> None:
    times = {row["contender"]: row["ms_per_image"] for row in of_planes}
    for row in of_planes:
        expected = times[row["contender"]] / times["dynunet"]
        assert row["ratio_to_dynunet"] == pytest.approx(expected)


def test_evaluations_are_counted(of_planes: list[dict[str, Any]]) -> None:
    rows = {row["contender"]: row for row in of_planes}
    expected = {"unet": 1, "dynunet": 1, "unet_mc_dropout": 2, "unet_deep_ensemble": 5}
    expected |= {"diffusion_unet_ddim50": 2 * 50, "ssn": 1, "medsegdiff_anchor": 1}
    assert {name: rows[name]["evaluations"] for name in expected} == expected
    ours = rows["medsegdiff"]
    assert ours["passes"]["denoiser"] == 2 * ours["steps"]
    assert 1 <= ours["passes"]["encoder"] <= 2  # the image, and perhaps its mirror image
    assert ours["evaluations"] == sum(ours["passes"].values())


def test_steps_and_weights_are_shared_as_told(of_planes: list[dict[str, Any]]) -> None:
    rows = {row["contender"]: row for row in of_planes}
    assert rows["unet"]["training_steps"] == 2
    assert rows["unet_deep_ensemble"]["training_steps"] == 5 * 2
    assert rows["unet_deep_ensemble"]["parameters"] == 5 * rows["unet"]["parameters"]
    ours, anchor = rows["medsegdiff"], rows["medsegdiff_anchor"]
    assert ours["train_seconds"] == anchor["train_seconds"]
    assert ours["parameters"] == anchor["parameters"]


@pytest.mark.long
def test_volumes_and_the_page(cohort: str, tmp_path: Path) -> None:
    def names() -> list[str]:
        path = tmp_path / "accuracy_per_second.json"
        return [row["contender"] for row in json.loads(path.read_text())]

    unet, _ = run(cohort, tmp_path, "--contenders", "unet,medsegdiff", *TRAINED)
    assert 0.0 < unet["dice"] <= 1.0 and unet["ged2"] is None and unet["hm_iou"] is None
    text = (tmp_path / "accuracy_per_second.md").read_text("utf-8")
    assert "What wins where ours does not" in text and "unet (" in text
    assert "1,302,500" in text  # 521 GFLOP x 1000 x 5 / 2, in units of 10^9
    (speed,) = run(cohort, tmp_path, "--contenders", "dynunet", "--minutes", "0", *QUICK)
    assert names() == ["dynunet"]  # other minutes: the former rows do not stand beside it
    assert speed["dice"] is None and speed["train_seconds"] == 0.0
    assert speed["ratio_to_dynunet"] == 1.0


def test_rows_of_earlier_calls_are_kept(two_raters: str, tmp_path: Path) -> None:
    for names in ("unet", "dynunet", "unet"):
        run(two_raters, tmp_path, "--planes", "--contenders", names, "--minutes", "0", *QUICK)
    rows = json.loads((tmp_path / "accuracy_per_second.json").read_text())
    assert [row["contender"] for row in rows] == ["dynunet", "unet"]


@pytest.mark.long
def test_more_steps_and_learning_curves(two_raters: str, tmp_path: Path) -> None:
    names = "dynunet,diffusion_unet_ddim50,medsegdiff"
    words = ["--contenders", names, "--steps", "1,3", "--looks", "2", "--cases", "1"]
    rows = {r["contender"]: r for r in run(two_raters, tmp_path, "--planes", *words, *TRAINED)}
    assert rows["diffusion_unet_ddim3"]["passes"] == {"network": 2 * 3}
    ours, more = rows["medsegdiff"], rows["medsegdiff_3_steps"]
    assert (ours["steps"], more["steps"]) == (1, 3) and "medsegdiff_1_steps" not in rows
    assert more["passes"]["denoiser"] == 3 * ours["passes"]["denoiser"]
    assert more["train_seconds"] == ours["train_seconds"]  # the same weights
    for name, row in rows.items():
        assert row["cases"] == 1
        if name.startswith("diffusion_unet"):  # a look at it would take longer than its training
            assert row["curve"] == []
            continue
        assert [seconds > 0 and 0 <= dice <= 1 for seconds, dice in row["curve"]] == [True] * 2
    assert "how many times DynUNet's" in (tmp_path / "accuracy_per_second.md").read_text("utf-8")


def test_seconds_to_a_dice() -> None:
    curve = [(10.0, 0.6), (20.0, 0.8), (30.0, 0.7)]
    found = [table.seconds_to(dice, curve) for dice in (0.3, 0.6, 0.7, 0.8, 0.81)]
    assert found == [5.0, 10.0, 15.0, 20.0, None]


def test_unknown_contenders_are_refused(
    cohort: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(cohort, tmp_path, "--contenders", "unnet", *TRAINED)
    assert "'unnet' is none of unet" in capsys.readouterr().err


def row(contender: str, dataset: str = "a", minutes: float = 3, **more: Any) -> dict[str, Any]:
    return {"contender": contender, "dataset": dataset, "minutes": minutes, "fold": 0, **more}


def test_rows_of_other_data_sets_stay(tmp_path: Path) -> None:
    before = [row("unet"), row("ssn"), row("unet", "b", minutes=9)]
    (tmp_path / "accuracy_per_second.json").write_text(json.dumps(before))
    assert table.merged([row("ssn", dice=1.0)], tmp_path) == [
        row("unet"),
        row("unet", "b", minutes=9),
        row("ssn", dice=1.0),
    ]
    assert table.merged([row("ssn", minutes=5)], tmp_path) == [before[2], row("ssn", minutes=5)]


def test_what_wins_over_ours_is_said() -> None:
    figures: dict[str, Any] = {"ged2": None, "hm_iou": None, "macs": 1e9, "parameters": 5}
    ours = row("medsegdiff", dice=0.8, ece=0.1, ms_per_image=2.0, **figures)
    better = row("other", dice=0.9, ece=0.2, ms_per_image=2.0, **figures)
    assert table.losses_to([ours, better]) == ["- Dice (ours 0.800): other (0.900)"]
    assert table.losses_to([better]) == []


def test_ours_may_be_changed_by_a_setting(two_raters: str, tmp_path: Path) -> None:
    wide = ["--set", "network_def#encoder#channels=[32, 64, 96, 192]"]
    names = ["--planes", "--contenders", "medsegdiff", "--minutes", "0", *QUICK]
    (usual,) = run(two_raters, tmp_path / "usual", *names)
    (changed,) = run(two_raters, tmp_path / "changed", *names, *wide)
    assert changed["parameters"] > usual["parameters"]
    assert changed["macs"] > usual["macs"]
