"""How good a contender's predictions of the held-out fold are, by the package's own metrics."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.harness.contender import Contender, Prediction
from benchmarks.harness.data import Item, Study
from benchmarks.harness.timing import Form, run
from medsegdiff.metrics import dice, region_of_interest, reliability, sample_set_metrics


@dataclass(frozen=True)
class Scores:
    """Means over the cases that were judged.

    Attributes:
        dice: Dice of the class of the highest mean probability, averaged over the
            foreground classes.
        ece: Calibration error over the reference dilated by 5 voxels, averaged over classes;
            cases without a reference voxel of a class are undefined and left out.
        ged2: Squared generalised energy distance; None with one rater.
        hm_iou: Mean IoU under the best matching; None with one rater.
        cases: Number of cases that were judged.
    """

    dice: float
    ece: float
    ged2: float | None
    hm_iou: float | None
    cases: int


def judge(
    contender: Contender,
    study: Study,
    form: Form,
    device: torch.device,
    minutes: float = math.inf,
    cases: int | None = None,
) -> Scores:
    """Predict held-out items, in the same order for all.

    Until all are done, or as many as ``cases`` says, or the time is up.
    """
    found: list[tuple[float, float, float, float]] = []
    started = time.perf_counter()
    for item in study.held_out[:cases]:
        torch.manual_seed(0)
        image = item["image"].to(device)
        found.append(_scores_of(_predict(contender, item, image, form), item, study))
        if time.perf_counter() - started > 60.0 * minutes:
            break
    means = [_mean(column) for column in zip(*found, strict=True)]
    several = study.raters > 1
    return Scores(
        means[0],
        means[1],
        means[2] if several else None,
        means[3] if several else None,
        len(found),
    )


def _predict(contender: Contender, item: Item, image: torch.Tensor, form: Form) -> Prediction:
    networks, case = contender.networks, item["case"]
    return run(lambda: contender.predict(networks, image, case), form, image.device)


def _scores_of(
    prediction: Prediction, item: Item, study: Study
) -> tuple[float, float, float, float]:
    """Dice, ECE, GED^2 and HM-IoU of one item."""
    mean, annotations = prediction.mean.float().numpy(), item["label"].numpy()
    mask, classes = mean.argmax(axis=0), range(1, study.num_classes)
    overlaps, errors = [], []
    for k in classes:
        raters = annotations == k
        reference = 2 * raters.sum(axis=0) > len(raters)
        region = region_of_interest(raters.any(axis=0))
        overlaps.append(dice(mask == k, reference))
        errors.append(reliability(mean[k], raters.mean(axis=0), region).ece)
    if study.raters < 2:
        return float(np.mean(overlaps)), _mean(errors), float("nan"), float("nan")
    sets = sample_set_metrics(prediction.labels.numpy(), annotations, list(classes))
    return float(np.mean(overlaps)), _mean(errors), sets["ged2"][0], sets["hm_iou"][0]


def _mean(values: list[float] | tuple[float, ...]) -> float:
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else float("nan")
