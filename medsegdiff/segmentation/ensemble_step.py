"""A step of MONAI's evaluator that keeps the whole ensemble of an image, not only its mask."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monai.networks import eval_mode
from monai.utils.enums import CommonKeys


def ensemble_step(engine: Engine, batch: Any) -> dict[str, Any]:
    """The ``iteration_update`` of a ``SupervisedEvaluator`` whose inferer draws ensembles.

    As the evaluator's own step, and beside ``pred`` it gives what metrics of sets and of
    probabilities need, whatever ``postprocessing`` makes of mask and label.

    Args:
        engine: Evaluator whose ``inferer`` is an ``EnsembleInferer``.
        batch: Batch of images and labels, for the evaluator's ``prepare_batch``.

    Returns:
        ``image`` (B, C, *spatial); ``label`` (B, M, *spatial) of class numbers; ``pred``
        (B, K, *spatial), the fused scores; ``members`` (B, N, *spatial) uint8, the label maps of
        the members; ``probability`` (B, K, *spatial) in [0, 1], their mean; ``raters``
        (B, M, *spatial), the label maps as they came.
    """
    evaluator: Any = engine
    image, label = evaluator.prepare_batch(
        batch, evaluator.state.device, evaluator.non_blocking, **evaluator.to_kwargs
    )[:2]
    with eval_mode(evaluator.network):
        ensembles = evaluator.inferer.ensembles(image, evaluator.network)
    evaluator.state.output = {
        CommonKeys.IMAGE: image,
        CommonKeys.LABEL: label,
        CommonKeys.PRED: evaluator.inferer.fused(ensembles).to(image.device),
        "members": torch.stack([one.labels for one in ensembles]),
        "probability": torch.stack([one.mean for one in ensembles]),
        "raters": label,
    }
    evaluator.fire_event(IterationEvents.FORWARD_COMPLETED)
    evaluator.fire_event(IterationEvents.MODEL_COMPLETED)
    output: dict[str, Any] = evaluator.state.output
    return output
