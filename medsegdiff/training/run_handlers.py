"""The handlers that every training run has, so that no bundle needs to spell them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler, ProgressBar
from ignite.metrics import Average
from monai.engines import Evaluator, SupervisedTrainer
from monai.handlers import EarlyStopHandler, StatsHandler
from monai.utils.enums import CommonKeys

from medsegdiff import __version__
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case
from medsegdiff.training.checkpoints import newest_that_loads, save_content, save_epoch
from medsegdiff.training.epoch_log import log_metrics
from medsegdiff.training.guards import (
    clip_gradients,
    pass_interrupts,
    stop_on_non_finite_loss,
    with_memory_explained,
)
from medsegdiff.training.processes import is_first, share_out, wait_for_all
from medsegdiff.training.run_comparison import refuse_other_cases, write_cases
from medsegdiff.training.run_state import RunState
from medsegdiff.training.tracking import RunTracking, check_tracking, tracking_address


@dataclass(frozen=True)
class RunHandlers:
    """Guards, averaged weights, checkpoints, progress, log and MLflow of a training run.

    ``output_dir`` gets ``cases.json``; ``last_checkpoint_epoch=N.pt`` after each epoch, to resume;
    ``best.pt`` and ``final.pt``, the averaged weights by validation and at the end. Each replaces
    its predecessor only once it is on the disk, and the last two checkpoints are kept. Where the
    encoder is trained alone at first (``anchor_steps`` of ``prepare_batch``), the validations of
    these steps do not count: the denoiser had learned nothing.

    Args:
        trainer: Trainer of MONAI, whose metric ``train_loss`` is set here.
        evaluator: Evaluator that validates the averaged weights, with a key metric.
        ema: Handler of the averaged weights, attached here.
        lr_scheduler: Learning rate schedule, whose state a resumed run needs.
        output_dir: Folder of the run.
        fold: Number of the fold that is held out; in the run's name at MLflow, and recorded.
        cases: Cases of training, and cases that are held out.
        tracking_uri: Address at which MLflow records the run; None or ``off``: it is not recorded.
        experiment_name: Name of the experiment at MLflow.
        parameters: Further parameters to record, beside numbers of cases and of the network's
            parameters.
        max_gradient_norm: Greatest norm of the gradient in a step; None: any.
        lower_is_better: Whether a lower key metric is the better one.
        early_stop: Handler of early stopping, whose count a resumed run needs.
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
    tracking_uri: str | None
    experiment_name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_gradient_norm: float | None = None
    lower_is_better: bool = False
    early_stop: EarlyStopHandler | None = None
    run_name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def attach(self, resumed: bool = False) -> None:
        """Attach all, and let the trainer go on from the last checkpoint if it is to be resumed.

        Raises:
            InputError: there is nothing to resume, the cases are not those of the run, or MLflow
                cannot record.
        """
        share_out(self.trainer, self.evaluator)
        tracking = self._tracking() if is_first() else None
        self._attach_endings(tracking)
        loss = Average(output_transform=lambda output: output[CommonKeys.LOSS])
        loss.attach(self.trainer, "train_loss")
        stop_on_non_finite_loss(self.trainer)
        if self.max_gradient_norm is not None:
            clip_gradients(self.trainer, self.trainer.network, self.max_gradient_norm)
        self.ema.attach(self.trainer)
        for engine in (self.trainer, self.evaluator):
            pass_interrupts(engine)
            if is_first():
                StatsHandler(iteration_log=False, epoch_print_logger=log_metrics).attach(engine)
        if is_first() and sys.stderr.isatty():  # a log has a line for each epoch
            bar = ProgressBar(persist=True)
            bar.attach(self.trainer, output_transform=lambda out: {"loss": out[CommonKeys.LOSS]})
        content = self._content() if resumed else None
        wait_for_all()  # until all have read what the first one will write over
        if is_first():
            write_cases(self.output_dir, self.cases)
        if tracking is not None:
            tracking.attach(self.trainer, self.evaluator, resumed)
        self._attach_state(content)

    def _content(self) -> dict[str, Any]:
        """What the run is to go on from."""
        refuse_other_cases(self.output_dir, self.cases)
        path, content = newest_that_loads(self.output_dir)
        done, wanted = content["trainer"]["epoch"], self.trainer.state.max_epochs
        if done > wanted:
            rule = f"is {wanted}, but {path.name} has {done} epochs"
            raise InputError("train#trainer#max_epochs", rule, f"Give {done} or more")
        return content

    def _attach_state(self, content: dict[str, Any] | None) -> None:
        """Checkpoints last, so that they hold what all other handlers have done."""
        folder, average = Path(self.output_dir), self.ema.ema_model
        state = RunState(self.trainer, self.evaluator, self.ema, self.lr_scheduler, self.early_stop)

        def restore(trainer: Engine) -> None:
            if content:
                state.restore(content)
                content.clear()
                if state.has_stopped:
                    trainer.terminate()

        alone = getattr(self.trainer.prepare_batch, "anchor_steps", 0)

        def keep_best(evaluator: Engine) -> None:
            if self.trainer.state.iteration <= alone:
                return
            score = float(evaluator.state.metrics[evaluator.state.key_metric_name])
            if is_better(score, state.best, self.lower_is_better):
                state.best = score
                if not is_first():
                    return
                save_content(folder / "best.pt", average.state_dict())

        def keep_epoch(trainer: Engine) -> None:
            save_epoch(folder, trainer.state.epoch, state.gathered())

        def keep_final(_: Engine) -> None:
            save_content(folder / "final.pt", average.state_dict())
            if state.best is None:  # no validation has counted
                save_content(folder / "best.pt", average.state_dict())

        self.trainer.add_event_handler(Events.STARTED, restore)
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, keep_best)
        if is_first():
            self.trainer.add_event_handler(Events.EPOCH_COMPLETED, keep_epoch)
            self.trainer.add_event_handler(Events.COMPLETED, keep_final)

    def _tracking(self) -> RunTracking | None:
        address = tracking_address(self.tracking_uri)
        if address is None:
            return None
        check_tracking(address)
        name = self.run_name or f"{Path(self.output_dir).name}-fold{self.fold}"
        recorded = self._recorded()
        return RunTracking(
            address, self.output_dir, self.experiment_name, name, recorded, self.tags
        )

    def _attach_endings(self, tracking: RunTracking | None) -> None:
        """First of all, since later handlers of exceptions are not called: MONAI's prints it."""

        def failed(trainer: Engine, error: BaseException) -> None:
            if tracking is not None:
                tracking.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise with_memory_explained(error, trainer)

        def hand_on(_: Engine, error: BaseException) -> None:
            raise error

        self.trainer.add_event_handler(Events.EXCEPTION_RAISED, failed)
        self.evaluator.add_event_handler(Events.EXCEPTION_RAISED, hand_on)

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


def is_better(score: float, best: float | None, lower: bool) -> bool:
    """Whether a validation is better than the best so far.

    Args:
        score: Key metric now; not a number is worse than any.
        best: Key metric of the best validation so far, None before the first.
        lower: Whether lower is better.

    >>> is_better(0.5, None, lower=False), is_better(0.5, 0.5, lower=False)
    (True, False)
    """
    if best is None or math.isnan(best):
        return best is None or not math.isnan(score)
    return score < best if lower else score > best
