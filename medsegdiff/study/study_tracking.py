"""The run of a whole study at MLflow: the parent of its folds' runs, with the final figures."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import check_extra, reason_of
from medsegdiff.core.impatience import briefly
from medsegdiff.data.manifest import Manifest
from medsegdiff.training.tracking import check_tracking, tracking_address

logger = logging.getLogger(__name__)

PARENT = "mlflow.parentRunId"
"""Tag by which MLflow shows a run below another."""

SHOWN = ("dice", "surface_dice", "ged2", "hm_iou", "ece", "ece_roi", "uncertainty_error_auroc")
"""Metrics of the report that studies are compared by."""

LONGEST, SHORT = 500, 36
"""Characters of a parameter and of a data set's digest that every server of MLflow takes."""


def check_recorder(given: Bundle | None, overrides: Mapping[str, Any]) -> None:
    """Refuse, before anything is done, a study whose training would need MLflow to be installed.

    Args:
        given: Bundle to train; None: a planned one, which records its training.
        overrides: Keys of the configuration -> values, ``tracking_uri`` perhaps among them.

    Raises:
        InputError: MLflow is not installed.
    """
    planned = "tracking_uri" if given is None else given.parser("train").get("tracking_uri")
    if tracking_address(overrides.get("tracking_uri", planned)) is not None:
        check_extra("a study, which MLflow records", "mlflow", "train")


class StudyRun:
    """The run of a study; nothing is recorded where the bundle's training records nothing.

    Args:
        bundle: Bundle whose training names the address and the experiment.
        changes: Keys of ``configs/train`` -> values.
        name: Name of the study.
        known: Identifier of the run, if it was made before; it is made anew if MLflow does not have
            it, and ``is_new`` then.

    Raises:
        InputError: MLflow is not installed, or cannot record at the address.
    """

    def __init__(
        self, bundle: Bundle, changes: Mapping[str, Any], name: str, known: str | None
    ) -> None:
        self.name, self.id, self.client = name, known, None
        self.is_new = False
        parser = bundle.parser("train", changes)
        wanted = parser.get_parsed_content("tracking_uri") if "tracking_uri" in parser else None
        address = tracking_address(wanted)
        check_tracking(address)
        if address is None:
            return
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        experiment = parser.get_parsed_content("experiment_name")
        self.client = MlflowClient(tracking_uri=address)
        found = self.client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self.client.create_experiment(experiment)
        try:
            self.id = self.client.get_run(known or "").info.run_id
        except MlflowException:
            self.id = self.client.create_run(place, run_name=name).info.run_id
            self.is_new = True

    def of_fold(self, number: int) -> dict[str, Any]:
        """Name and tags of the run of a fold, as ``train`` takes them."""
        if self.client is None:
            return {}
        return {"run_name": f"{self.name}-fold{number}", "tags": {PARENT: self.id}}

    def describe(self, plan: Mapping[str, Any], data: Manifest, digest: str) -> None:
        """Record what the study is of: its plan as parameters, and its data set as an input.

        Args:
            plan: Decisions of the plan; empty for a given bundle.
            data: Data set.
            digest: SHA-256 of its files.
        """

        def record(client: Any) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag, Param

            known = {**plan, "cases": len(data.cases), "raters": data.raters}
            parameters = [Param(name, str(value)[:LONGEST]) for name, value in known.items()]
            client.log_batch(self.id, params=parameters)
            used = Dataset(data.name, digest[:SHORT], "local", data.reference or data.name)
            tags = [InputTag("mlflow.data.context", "training")]
            client.log_inputs(self.id, [DatasetInput(used, tags)])

        self._recorded("the plan and the data", record)

    def finish(self, report: Mapping[str, Any], files: Sequence[Path], bundle: Path) -> None:
        """Record the final figures by metric and class, files, and the bundle; end the run.

        The bundle becomes a version of the registered model of the study's name.

        Args:
            report: Content of ``report.json``.
            files: Files to keep with the run.
            bundle: Folder of the bundle.
        """
        figures = {
            f"{metric}_{slug}": value
            for metric in SHOWN
            for slug, value in report["summary"].get(metric, {}).items()
            if isinstance(value, float) and math.isfinite(value)
        }

        def record_figures(client: Any) -> None:
            for name, value in figures.items():
                client.log_metric(self.id, name, value)

        def record_files(client: Any) -> None:
            for file in files:
                client.log_artifact(self.id, str(file))
            client.log_artifacts(self.id, str(bundle), "bundle")

        def register(client: Any) -> None:
            with suppress(MlflowException):  # it is there already
                client.create_registered_model(self.name)
            place = f"{client.get_run(self.id).info.artifact_uri}/bundle"
            client.create_model_version(self.name, place, self.id)

        if self.client is not None:
            from mlflow.exceptions import MlflowException
        self._recorded("the study's figures", record_figures)
        self._recorded("the report and the bundle", record_files)
        self._recorded("the registered model", register)
        self._recorded("the end of the study", lambda client: client.set_terminated(self.id))

    def _recorded(self, what: str, record: Callable[[Any], None]) -> None:
        """Record something; a failure only warns."""
        if self.client is None:
            return
        try:
            with briefly():
                record(self.client)
        except Exception as error:
            logger.warning("MLflow misses %s: %s", what, reason_of(error))
