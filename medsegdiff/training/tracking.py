"""Tracking by MLflow: looked at before a run starts, and never the reason why one is lost."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from medsegdiff.core.atomic_files import read_json, write_json, written_aside
from medsegdiff.core.errors import InputError, needs_extra, reason_of
from medsegdiff.core.impatience import SECONDS, briefly

logger = logging.getLogger(__name__)

WITHOUT = "go on without tracking: --set tracking_uri=off"
SQLITE = "sqlite:///"


def tracking_address(wanted: Any) -> str | None:
    """Address at which MLflow records, or None if nothing is to be recorded.

    Args:
        wanted: Value of ``tracking_uri``: an address, or None or ``off``. An address gives way to
            the variable ``MLFLOW_TRACKING_URI``.

    >>> tracking_address("off") is None
    True
    """
    if wanted is None or str(wanted).lower() in ("off", "none", "false", ""):
        return None
    return os.environ.get("MLFLOW_TRACKING_URI") or str(wanted)


def check_tracking(address: str | None) -> None:
    """Refuse in seconds an address at which MLflow cannot record; make a database that is missing.

    Args:
        address: Address of a server or database; None: nothing is recorded.

    Raises:
        InputError: MLflow is not installed, or the address cannot be used.
    """
    if address is None:
        return
    with needs_extra(f"tracking_uri {address}", "mlflow", "train"):
        import mlflow
    if address.startswith("file:") or "://" not in address:
        rule = "is a folder, in which MLflow no longer records"
        remedy = f"Use a database ({SQLITE}mlruns.db) or a server, or {WITHOUT}"
        raise InputError(f"tracking_uri {address}", rule, remedy)
    if address.startswith(SQLITE):
        _check_database(Path(address.removeprefix(SQLITE)))
    try:
        with briefly():
            _open(mlflow.MlflowClient(tracking_uri=address))
    except Exception as error:
        remedy = f"Start or mend it (a half-made database: move its file away), or {WITHOUT}"
        rule = f"MLflow cannot record there ({reason_of(error)})"
        raise InputError(f"tracking_uri {address}", rule, remedy) from error


class RunTracking:
    """Records a run with MLflow: parameters, figures of each epoch, how it ended.

    A failure after the start is logged once, and the run goes on. A resumed run goes on in the
    record that it had, which ``mlflow.json`` in its folder names.

    Args:
        address: Address at which MLflow records, checked by :func:`check_tracking`.
        folder: Folder of the run, with its ``cases.json``.
        experiment: Name of the experiment.
        name: Name of the run.
        parameters: Parameters to record.
        tags: Tags of the run.
    """

    def __init__(
        self,
        address: str,
        folder: str | Path,
        experiment: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.address, self.folder, self.name = address, Path(folder), name
        self.parameters, self.tags = dict(parameters), dict(tags or {})
        shared = {"tracking_uri": address, "experiment_name": experiment, "iteration_log": False}
        artifacts = [str(self.folder / "cases.json")]
        self._training = MLFlowHandler(**shared, artifacts=artifacts)
        self._validation = MLFlowHandler(**shared)
        self._warned = False

    def attach(self, trainer: Engine, evaluator: Engine, resumed: bool) -> None:
        """Attach to both engines of a run.

        Args:
            trainer: Trainer of the run.
            evaluator: Evaluator of the run.
            resumed: Whether the run goes on, and its record with it.
        """
        validation = self._validation
        validation.global_epoch_transform = lambda _: trainer.state.epoch
        trainer.add_event_handler(Events.STARTED, lambda engine: self._begin(engine, resumed))
        self._on(trainer, Events.EPOCH_COMPLETED, self._training.epoch_completed)
        self._on(evaluator, Events.EPOCH_COMPLETED, validation.epoch_completed)
        self._on(trainer, Events.COMPLETED, lambda _: self._training.complete())
        trainer.add_event_handler(Events.COMPLETED, lambda _: self.end("FINISHED"))

    def end(self, status: str) -> None:
        """Record how the run ended; nothing if it did not begin.

        Args:
            status: Status ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        run = self._training.cur_run
        if run is None:
            return

        def close() -> None:
            self._training.client.set_terminated(run.info.run_id, status)

        self._guarded(close)
        self._training.cur_run = self._validation.cur_run = None
        for handler in (self._training, self._validation):
            self._guarded(handler.close)  # lets go of a database

    def _begin(self, trainer: Engine, resumed: bool) -> None:
        try:
            with briefly():
                self._find_or_create_run(resumed)
                logged = self._training.cur_run.data.params
                new = {k: v for k, v in self.parameters.items() if k not in logged}
                self._training.experiment_param = new
                self._training.start(trainer)
                self._note_changes(logged)
        except Exception as error:
            rule = f"MLflow cannot record there ({reason_of(error)})"
            subject = f"tracking_uri {self.address}"
            raise InputError(subject, rule, f"Mend it and try again, or {WITHOUT}") from error

    def _find_or_create_run(self, resumed: bool) -> None:
        handler, note = self._training, self.folder / "mlflow.json"
        handler._set_experiment()  # find or create it
        client, experiment = handler.client, handler.experiment.experiment_id
        known = (read_json(note) or {}) if resumed else {}
        run = None
        if known.get("address") == self.address:
            found = client.search_runs([experiment], f"attributes.run_id = '{known['run']}'")
            run = found[0] if found else None
        if run is None:
            run = client.create_run(experiment, run_name=self.name, tags=self.tags)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        handler.cur_run = self._validation.cur_run = run
        write_json(note, {"address": self.address, "run": run.info.run_id})

    def _note_changes(self, logged: Mapping[str, str]) -> None:
        """Note parameters that a resumed run has otherwise; MLflow never changes them."""
        for name, value in self.parameters.items():
            if logged.get(name, str(value)) != str(value):
                run = self._training.cur_run.info.run_id
                self._training.client.set_tag(run, f"resumed_with.{name}", str(value))

    def _on(self, engine: Engine, event: Any, handler: Callable[[Engine], None]) -> None:
        engine.add_event_handler(event, lambda it: self._guarded(lambda: handler(it)))

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            with briefly():
                call()
        except Exception as error:
            if not self._warned:
                logger.warning("MLflow misses figures, training goes on: %s", reason_of(error))
            self._warned = True


def _check_database(path: Path) -> None:
    """Refuse a database of SQLite that is locked or damaged; make one that is missing, whole."""
    if not path.exists() or path.stat().st_size == 0:
        import mlflow

        with written_aside(path, durable=True) as aside:
            _open(mlflow.MlflowClient(tracking_uri=f"{SQLITE}{aside}"))
        return
    try:
        with closing(sqlite3.connect(path, timeout=SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except sqlite3.Error as error:
        rule = f"MLflow cannot record in this database ({error})"
        remedy = f"End the program that holds it, or move the file away, or {WITHOUT}"
        raise InputError(path, rule, remedy) from error


def _open(client: Any) -> None:
    """Ask for something that every store has, so that it is made and checked."""
    client.search_experiments(max_results=1)
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    if store is not None and hasattr(store, "_dispose_engine"):
        store._dispose_engine()  # so that the file is closed
