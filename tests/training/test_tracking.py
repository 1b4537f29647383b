"""MLflow: tried in seconds, said in a line, and every run ends with a status."""

from __future__ import annotations

import builtins
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from ignite.engine import Engine

from medsegdiff.core.errors import InputError
from medsegdiff.core.stopping import Stopped
from medsegdiff.training.tracking import RunTracking, check_tracking, tracking_address


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlruns.db"


@pytest.mark.parametrize("value", [None, "off", "null", False])
def test_tracking_can_be_left_out(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    wanted = None if value == "null" else value
    assert tracking_address(wanted) is None
    check_tracking(None)


def test_the_variable_wins_over_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_address("sqlite:///a.db") == "sqlite:///a.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert tracking_address("sqlite:///a.db") == "http://elsewhere"


@pytest.mark.parametrize("address", ["mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"is a folder.*sqlite:///.*tracking_uri=off"):
        check_tracking(address)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_dead_server_and_a_silent_one_are_told_within_ten_seconds(silent_server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}", silent_server):
        started = time.monotonic()
        with pytest.raises(InputError, match=r"cannot record there.*tracking_uri=off"):
            check_tracking(address)
        assert time.monotonic() - started < 10


def test_a_locked_database_is_told(database: str, tmp_path: Path) -> None:
    check_tracking(database)
    with sqlite3.connect(tmp_path / "mlruns.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"database is locked.*tracking_uri=off"):
            check_tracking(database)
        other.rollback()
    check_tracking(database)


def test_a_half_made_database_is_told(database: str, tmp_path: Path) -> None:
    check_tracking(f"sqlite:///{tmp_path}/whole.db")
    shutil.copy(tmp_path / "whole.db", tmp_path / "mlruns.db")
    with sqlite3.connect(tmp_path / "mlruns.db") as half:
        half.execute("UPDATE alembic_version SET version_num = '181f10493468'")
    with pytest.raises(InputError, match=r"half-made database: move its file away"):
        check_tracking(database)
    other = tmp_path / "other.db"
    other.write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"not a database.*move the file away"):
        check_tracking(f"sqlite:///{other}")
    other.unlink()  # the remedy
    check_tracking(f"sqlite:///{other}")


def test_a_database_is_whole_or_absent(
    database: str, tmp_path: Path, check_database: Callable[[Path], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medsegdiff.training.tracking._check_database", check_database)

        def killed(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            check_tracking(database)
    assert list(tmp_path.glob("mlruns*")) == []
    (tmp_path / "mlruns.db").touch()  # as a kill of MLflow itself leaves it
    check_tracking(database)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "mlflow":
            raise ModuleNotFoundError(name)
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"medsegdiff\[train\]"):
        check_tracking("sqlite:///a.db")


def tracked(database: str, folder: Path, resumed: bool = False) -> tuple[RunTracking, Engine]:
    folder.mkdir(exist_ok=True)
    (folder / "cases.json").write_text("{}")
    check_tracking(database)
    trainer, evaluator = Engine(lambda *_: None), Engine(lambda *_: None)
    tracking = RunTracking(database, folder, "lines", "same name", {"lr": 0.1})
    tracking.attach(trainer, evaluator, resumed)
    return tracking, trainer


def statuses(database: str) -> list[str]:
    client = mlflow.MlflowClient(database)
    experiment = client.get_experiment_by_name("lines")
    assert experiment is not None
    return sorted(run.info.status for run in client.search_runs([experiment.experiment_id]))


def test_runs_of_one_name_stay_apart_and_a_resumed_one_goes_on(
    database: str, tmp_path: Path
) -> None:
    _, trainer = tracked(database, tmp_path / "a")
    trainer.run([0])
    _, other = tracked(database, tmp_path / "b")
    other.run([0])
    assert statuses(database) == ["FINISHED", "FINISHED"]
    _, again = tracked(database, tmp_path / "a", resumed=True)
    again.run([0])
    assert statuses(database) == ["FINISHED", "FINISHED"]


def test_figures_that_cannot_be_recorded_do_not_end_a_training(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("the server is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai.handlers.MLFlowHandler.epoch_completed", broken)
        _, trainer = tracked(database, tmp_path / "a")
        trainer.run([0], max_epochs=3)
    assert trainer.state.epoch == 3
    assert caplog.text.count("training goes on") == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [(Stopped(15), "KILLED"), (KeyboardInterrupt(), "KILLED"), (OSError("full"), "FAILED")],
)
def test_a_run_that_fails_has_a_status(
    database: str, tmp_path: Path, error: BaseException, status: str
) -> None:
    from tests.training.test_run_handlers import run

    def fails(*_: Any, **__: Any) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medsegdiff.training.run_handlers.save_epoch", fails)
        with pytest.raises(type(error)):
            run(tmp_path / "run", 2)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns.db")
    experiment = client.get_experiment_by_name("line")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == status
