"""The handlers that every training run has, so that no bundle needs to spell them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler, ProgressBar
from ignite.metrics import Average
from monai.engines import Evaluator, SupervisedTrainer
from monai.handlers import CheckpointSaver, MLFlowHandler, StatsHandler
from monai.utils.enums import CommonKeys

from medsegdiff import __version__
from medsegdiff.data.manifest import Case
from medsegdiff.training.checkpoints import resume, write_cases
from medsegdiff.training.epoch_log import log_metrics
from medsegdiff.training.guards import clip_gradients, pass_interrupts, stop_on_non_finite_loss


@dataclass(frozen=True)
class RunHandlers:
    """Guards, averaged weights, checkpoints, progress, log and MLflow of a training run.

    ``output_dir`` gets ``cases.json``; ``last_checkpoint_epoch=N.pt`` after each epoch, to resume;
    ``best.pt`` and ``final.pt``, the averaged weights by validation and at the end.

    Args:
        trainer: Trainer of MONAI, whose metric ``train_loss`` is set here.
        evaluator: Evaluator that validates the averaged weights, with a key metric.
        ema: Handler of the averaged weights, attached here.
        lr_scheduler: Learning rate schedule, whose state a resumed run needs.
        output_dir: Folder of the run.
        fold: Number of the fold that is held out; in the run's name at MLflow, and recorded.
        cases: Cases of training, and cases that are held out.
        tracking_uri: Address at which MLflow records the run.
        experiment_name: Name of the experiment at MLflow.
        parameters: Further parameters to record, beside numbers of cases and of the network's
            parameters.
        max_gradient_norm: Greatest norm of the gradient in a step; None: any.
        lower_is_better: Whether a lower key metric is the better one.
        run_name: Name of the run at MLflow; empty: of the folder and the fold.
        tags: Tags of the run at MLflow.
    """

    trainer: SupervisedTrainer
    evaluator: Evaluator
    ema: EMAHandler
    lr_scheduler: Any
    output_dir: str
    fold: int
    cases: Sequence[Sequence[Case]]
    tracking_uri: str
    experiment_name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_gradient_norm: float | None = None
    lower_is_better: bool = False
    run_name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def attach(self, resumed: bool = False) -> None:
        """Attach all, and let the trainer go on from the last checkpoint if it is to be resumed.

        Raises:
            InputError: there is nothing to resume.
        """
        write_cases(self.output_dir, self.cases)
        loss = Average(output_transform=lambda output: output[CommonKeys.LOSS])
        loss.attach(self.trainer, "train_loss")
        stop_on_non_finite_loss(self.trainer)
        if self.max_gradient_norm is not None:
            clip_gradients(self.trainer, self.trainer.network, self.max_gradient_norm)
        self.ema.attach(self.trainer)
        for engine in (self.trainer, self.evaluator):
            pass_interrupts(engine)
            StatsHandler(iteration_log=False, epoch_print_logger=log_metrics).attach(engine)
        self._attach_checkpoints()
        self._attach_tracking()
        if sys.stderr.isatty():  # a log has a line for each epoch
            bar = ProgressBar(persist=True)
            bar.attach(self.trainer, output_transform=lambda out: {"loss": out[CommonKeys.LOSS]})
        if resumed:
            resume(self.output_dir, self._state, self.trainer)

    @property
    def _state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "network": self.trainer.network,
            "ema": self.ema.ema_model,
            "optimizer": self.trainer.optimizer,
            "lr_scheduler": self.lr_scheduler,
            "trainer": self.trainer,
        }

    def _attach_checkpoints(self) -> None:
        averaged = {"network": self.ema.ema_model}
        last = CheckpointSaver(
            self.output_dir, self._state, file_prefix="last", save_interval=1, n_saved=1
        )
        final = CheckpointSaver(
            self.output_dir, averaged, save_final=True, final_filename="final.pt"
        )
        best = CheckpointSaver(
            self.output_dir,
            averaged,
            save_key_metric=True,
            key_metric_filename="best.pt",
            key_metric_negative_sign=self.lower_is_better,
        )
        last.attach(self.trainer)
        final.attach(self.trainer)
        best.attach(self.evaluator)

    def _attach_tracking(self) -> None:
        shared = {
            "tracking_uri": self.tracking_uri,
            "experiment_name": self.experiment_name,
            "run_name": self.run_name or f"{Path(self.output_dir).name}-fold{self.fold}",
            "iteration_log": False,
        }
        training = MLFlowHandler(
            **shared,
            experiment_param=self._recorded(),
            artifacts=[str(Path(self.output_dir) / "cases.json")],
            close_on_complete=True,
        )
        training.attach(self.trainer)

        @self.trainer.on(Events.STARTED)  # after the handler's own, which makes the run
        def tag(_: Engine) -> None:
            for name, value in self.tags.items():
                training.client.set_tag(training.cur_run.info.run_id, name, value)

        validation = MLFlowHandler(
            **shared, global_epoch_transform=lambda _: self.trainer.state.epoch
        )
        validation.attach(self.evaluator)

    def _recorded(self) -> dict[str, Any]:
        training, validation = self.cases
        return {
            "fold": self.fold,
            "parameters": sum(p.numel() for p in self.trainer.network.parameters()),
            "training_cases": len(training),
            "validation_cases": len(validation),
            "medsegdiff": __version__,
            **self.parameters,
        }
