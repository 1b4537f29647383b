"""The run of a whole study at MLflow: the parent of its folds' runs, with the final figures."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import needs_extra

PARENT = "mlflow.parentRunId"
"""Tag by which MLflow shows a run below another."""


class StudyRun:
    """The run of a study.

    Args:
        bundle: Bundle whose training names the address and the experiment.
        changes: Keys of ``configs/train`` -> values.
        name: Name of the study.
        known: Identifier of the run, if it was made before; it is made anew if MLflow does not have
            it.

    Raises:
        InputError: MLflow is not installed.
    """

    def __init__(
        self, bundle: Bundle, changes: Mapping[str, Any], name: str, known: str | None
    ) -> None:
        with needs_extra("training", "mlflow", "train"):
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        parser = bundle.parser("train", changes)
        address, experiment = map(parser.get_parsed_content, ("tracking_uri", "experiment_name"))
        told = os.environ.get("MLFLOW_TRACKING_URI")  # goes before, as in the runs of the folds
        self.client, self.name = MlflowClient(tracking_uri=told or address), name
        found = self.client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self.client.create_experiment(experiment)
        try:
            self.id = self.client.get_run(known or "").info.run_id
        except MlflowException:
            self.id = self.client.create_run(place, run_name=name).info.run_id

    def of_fold(self, number: int) -> dict[str, Any]:
        """Name and tags of the run of a fold, as ``train`` takes them."""
        return {"run_name": f"{self.name}-fold{number}", "tags": {PARENT: self.id}}

    def finish(self, report: Mapping[str, Any]) -> None:
        """Record the final figures, by metric and class, and end the run."""
        for metric in ("dice", "surface_dice", "ece"):
            for slug, value in report["summary"].get(metric, {}).items():
                if isinstance(value, float) and math.isfinite(value):
                    self.client.log_metric(self.id, f"{metric}_{slug}", value)
        self.client.set_terminated(self.id)
