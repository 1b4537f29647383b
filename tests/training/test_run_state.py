"""A run that was stopped and resumed is the run that was not, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import InputError
from medsegdiff.training.checkpoints import latest_checkpoint
from medsegdiff.training.prepare_batch import NoisedMaskPrepareBatch
from medsegdiff.training.run import train
from tests.tiny_bundle import quick

EPOCHS = 5
STEPS = 2
"""Number of steps of an epoch: four cases, two a batch."""

Go = Callable[..., Path]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def go(untrained: Bundle, cohort: Path) -> Go:
    """Trains in a folder, to the end or up to a step."""

    def run(folder: Path, resume: bool = False, until: int | None = None, **more: Any) -> Path:
        steps = iter(range(10**6))
        prepare = NoisedMaskPrepareBatch.__call__

        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == until:
                raise Killed
            return prepare(*args, **kwargs)

        settings = {
            **quick(folder, EPOCHS),
            "early_stop#patience": 3,
            "tracking_uri": "off",
            # "all" of it random: the order, the crops, noise, and when the denoiser is trained
            "train#prepare_batch#every": 3,
            **more,
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NoisedMaskPrepareBatch, "__call__", counted)
            try:
                train(untrained, cohort, folder, resume=resume, device="cpu", overrides=settings)
            except Killed:
                assert until is not None
        return folder

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole") / "run"


def content(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Equality of all tensors, numbers and texts of two states."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{place}.{index}")
    else:
        assert one == other, place


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([0], id="in the first step"),
        pytest.param([1 * STEPS], id="after one epoch"),
        pytest.param([3 * STEPS], id="after three epochs"),
        pytest.param([2 * STEPS + 1], id="in the middle of the third epoch"),
        pytest.param([STEPS + 1, STEPS, 1, STEPS + 1], id="four times"),
    ],
)
def test_a_resumed_run_is_the_same_run(
    go: Go, whole: Path, tmp_path: Path, stops: list[int]
) -> None:
    if not (whole / "final.pt").exists():
        go(whole)
    folder = tmp_path / "run"
    for number, stop in enumerate(stops):
        go(folder, resume=number > 0, until=stop)
        assert not (folder / "final.pt").exists()
    go(folder, resume=True)
    for name in ("final.pt", "best.pt"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    ends = [latest_checkpoint(one) for one in (folder, whole)]
    assert ends[0] is not None and ends[1] is not None and ends[0].name == ends[1].name
    assert_same(content(ends[0]), content(ends[1]))


def test_a_run_that_early_stopping_ended_stays_ended(go: Go, tmp_path: Path) -> None:
    settings = {"early_stop#score_function": "$lambda engine: 0.0", "early_stop#patience": 2}
    folder = go(tmp_path / "run", **settings)
    last = latest_checkpoint(folder)
    assert last is not None and last.name == "last_checkpoint_epoch=3.pt"
    final = (folder / "final.pt").read_bytes()
    (folder / "final.pt").unlink()  # as if killed just before it was written
    go(folder, resume=True, **settings)
    assert latest_checkpoint(folder) == last and (folder / "final.pt").read_bytes() == final


def test_another_learning_rate_and_length_take_effect(go: Go, tmp_path: Path) -> None:
    short = {"train#trainer#max_epochs": 2}
    folder = go(tmp_path / "run", **short)
    before = content(folder / "last_checkpoint_epoch=2.pt")
    go(folder, resume=True, learning_rate=0.0001, **{"train#trainer#max_epochs": 4})
    after = content(folder / "last_checkpoint_epoch=4.pt")
    assert before["optimizer"]["param_groups"][0]["initial_lr"] == pytest.approx(0.001)
    assert after["optimizer"]["param_groups"][0]["initial_lr"] == pytest.approx(0.0001)
    assert after["lr_scheduler"]["base_lrs"] == pytest.approx([0.0001])
    assert after["lr_scheduler"]["t_total"] == 4 * STEPS
    assert after["lr_scheduler"]["last_epoch"] == 4 * STEPS
    step = content(folder / "last_checkpoint_epoch=3.pt")["optimizer"]["param_groups"][0]["lr"]
    straight = go(tmp_path / "straight", learning_rate=0.0001, **{"train#trainer#max_epochs": 4})
    same = content(straight / "last_checkpoint_epoch=3.pt")["optimizer"]["param_groups"][0]["lr"]
    assert step == pytest.approx(same)


def test_a_run_cannot_be_made_shorter_than_it_is(go: Go, tmp_path: Path) -> None:
    folder = go(tmp_path / "run", **{"train#trainer#max_epochs": 2})
    with pytest.raises(InputError, match=r"max_epochs: is 1, but .*=2.pt has 2 epochs"):
        go(folder, resume=True, **{"train#trainer#max_epochs": 1})
