"""``validate`` of a planned bundle's ``configs/train.yaml``: held-out cases, and their figures."""

from __future__ import annotations

from typing import Any

from medsegdiff.metrics.calibration_error import ROI_VOXELS
from medsegdiff.planning.decisions import Plan

EVERY = 3
"""Interval of the held-out slices that a training is validated on."""


def planes_or_cases(plan: Plan, split: int) -> str:
    """The expression for the cases of a run, or for their slices.

    Args:
        plan: Plan of the bundle.
        split: Number 0 of the training cases, or 1 of the held-out ones.
    """
    if plan.slices:
        chain = "monai.transforms.Compose(@deterministic_transforms)"
        every = f", every={EVERY}" if split else ""
        return f"$medsegdiff.data.cut_into_planes(@split[{split}], {chain}{every})"
    return f"$medsegdiff.data.datalist(@split[{split}])"


MAJORITY = {
    "_target_": "Lambdad",
    "keys": "label",
    "func": "$lambda raters: raters.mode(dim=0, keepdim=True).values",
}
"""The class that most raters chose."""


def _figure(metric: str, maps: str, **settings: Any) -> dict[str, Any]:
    """A figure of each validation, by a metric of ``medsegdiff.metrics``."""
    classes = {"classes": "$range(1, @num_classes)"}
    return {
        "_target_": "medsegdiff.training.EpochMetric",
        "metric": {"_target_": f"medsegdiff.metrics.{metric}", **classes, **settings},
        "output_transform": f"$monai.handlers.from_engine(['{maps}', 'raters'])",
    }


def _figures(plan: Plan) -> dict[str, Any]:
    """What each validation tells beside the Dice."""
    calibration = "ExpectedCalibrationError", "probability"
    found = {"val_ece": _figure(*calibration)}
    found["val_ece_roi"] = _figure(*calibration, near=ROI_VOXELS)
    if plan.several_raters:
        found["val_ged2"] = _figure("GeneralizedEnergyDistance", "members")
    return found


def validation(plan: Plan) -> dict[str, Any]:
    """Content of ``validate`` in ``configs/train.yaml``."""
    # planes are cut and transformed before
    chain = {
        "_target_": "Compose",
        "transforms": [] if plan.slices else "@deterministic_transforms",
    }
    dataset: dict[str, Any] = {"_target_": "CacheDataset", "data": planes_or_cases(plan, 1)}
    dataset |= {"progress": False, "transform": "@validate#preprocessing"}
    discrete = {"_target_": "AsDiscreted", "to_onehot": "@num_classes"}
    return {
        "preprocessing": chain,
        "dataset": dataset,
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@validate#dataset",
            "batch_size": 1,
            "num_workers": "@num_workers",
        },
        "inferer": {
            "_target_": "medsegdiff.segmentation.EnsembleInferer",
            "window": list(plan.window),
            **{"members": 4, "steps": 1, "sampler_options": {"eta": 1.0}, "seed": "@seed"},
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {**discrete, "keys": "pred", "argmax": True},
                *([MAJORITY] if plan.several_raters else []),
                {"_target_": "medsegdiff.data.LeaveOutUnknownd"},
                {**discrete, "keys": "label"},
            ],
        },
        "key_metric": {
            "val_mean_dice": {
                "_target_": "MeanDice",
                "include_background": False,
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "additional_metrics": _figures(plan),
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "$@ema.ema_model",
            "inferer": "@validate#inferer",
            "iteration_update": "$medsegdiff.segmentation.ensemble_step",
            "postprocessing": "@validate#postprocessing",
            "key_val_metric": "@validate#key_metric",
            "additional_metrics": "@validate#additional_metrics",
        },
    }
