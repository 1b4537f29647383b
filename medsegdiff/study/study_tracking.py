"""The run of a whole study at MLflow: the parent of its folds' runs, with the final figures."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import reason_of
from medsegdiff.training.tracking import briefly, check_tracking, tracking_address

logger = logging.getLogger(__name__)

PARENT = "mlflow.parentRunId"
"""Tag by which MLflow shows a run below another."""


class StudyRun:
    """The run of a study; nothing is recorded where the bundle's training records nothing.

    Args:
        bundle: Bundle whose training names the address and the experiment.
        changes: Keys of ``configs/train`` -> values.
        name: Name of the study.
        known: Identifier of the run, if it was made before; it is made anew if MLflow does not have
            it.

    Raises:
        InputError: MLflow is not installed, or cannot record at the address.
    """

    def __init__(
        self, bundle: Bundle, changes: Mapping[str, Any], name: str, known: str | None
    ) -> None:
        self.name, self.id, self.client = name, known, None
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

    def of_fold(self, number: int) -> dict[str, Any]:
        """Name and tags of the run of a fold, as ``train`` takes them."""
        if self.client is None:
            return {}
        return {"run_name": f"{self.name}-fold{number}", "tags": {PARENT: self.id}}

    def finish(self, report: Mapping[str, Any]) -> None:
        """Record the final figures, by metric and class, and end the run; a failure only warns."""
        if self.client is None:
            return
        figures = {
            f"{metric}_{slug}": value
            for metric in ("dice", "surface_dice", "ece")
            for slug, value in report["summary"].get(metric, {}).items()
            if isinstance(value, float) and math.isfinite(value)
        }
        try:
            with briefly():
                for name, value in figures.items():
                    self.client.log_metric(self.id, name, value)
                self.client.set_terminated(self.id)
        except Exception as error:
            logger.warning("MLflow misses the study's figures: %s", reason_of(error))
