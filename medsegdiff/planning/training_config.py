"""``configs/train.yaml`` of a planned bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medsegdiff.data.around_structures import MARGIN
from medsegdiff.planning.decisions import Layout, Plan
from medsegdiff.planning.fingerprint import Fingerprint
from medsegdiff.planning.inference_config import READ
from medsegdiff.planning.validation_config import planes_or_cases, validation

LOCATOR_TRAINING = (
    "$medsegdiff.locating.train_locator(@locator_network, @split[0], @manifest, @output_dir, "
    "spacing=@locator_spacing, steps=@locator_steps, seed=@seed, device=@device)"
)
"""Expression that trains the locator of volumes with small structures, before all else."""

WIDER = 1.25
"""Size that is cut out of a large image before it is turned, relative to the patch."""


def training(plan: Plan, of: Fingerprint, name: str, data: str) -> dict[str, Any]:
    """Content of ``configs/train.yaml``."""
    return {
        "imports": [
            *("$import datetime", "$import pathlib", "$import monai", "$import torch"),
            "$import medsegdiff",
        ],
        "bundle_root": ".",
        "dataset_dir": data,
        "output_dir": "$@bundle_root + '/runs/' + "
        "datetime.datetime.now().strftime('%Y%m%d-%H%M%S')",
        "fold": 0,
        "seed": 0,
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "resume": False,
        "manifest": "$medsegdiff.data.load_manifest(@dataset_dir)",
        "split": "$@manifest.split(@fold)",
        **{key: f"%configs/inference.yaml#{key}" for key in (*READ, *_coarse_keys(plan))},
        "memory_format": f"$torch.{memory_format(plan.layout, plan.dims)}",
        "network": "$@network_def.to(@device, memory_format=@memory_format)",
        "patch_size": list(plan.patch),
        **_around(plan, of.spacing),
        "random_transforms": _augmentation(plan),
        "augmentation": {
            "_target_": "medsegdiff.data.ComposeWithoutMetadata",
            "transforms": "@random_transforms",
        },
        "batch_size": plan.batch,
        "num_workers": 0,
        "learning_rate": 0.001,
        "val_interval": plan.val_interval,
        "steps_per_epoch": plan.steps_per_epoch,
        **({"locator_steps": plan.coarse.steps} if plan.coarse else {}),
        "anchor_steps": plan.anchor_steps,
        "train": _train(plan),
        "ema": {
            "_target_": "ignite.handlers.EMAHandler",
            "model": "@network",
            **{"momentum": 0.002, "momentum_warmup": 0.1, "warmup_iters": 500},
        },
        "validate": validation(plan),
        "tracking_uri": "$'sqlite:///' + str(pathlib.Path.cwd() / 'mlruns.db')",
        "experiment_name": name,
        "run_handlers": {
            "_target_": "medsegdiff.training.RunHandlers",
            "trainer": "@train#trainer",
            "evaluator": "@validate#evaluator",
            "ema": "@ema",
            "lr_scheduler": "@train#lr_scheduler",
            **{key: f"@{key}" for key in ("output_dir", "fold", "tracking_uri", "experiment_name")},
            "cases": "@split",
            "parameters": {key: f"@{key}" for key in ("seed", "batch_size", "learning_rate")},
            "max_gradient_norm": 5.0,
        },
        "initialize": [
            *([LOCATOR_TRAINING] if plan.coarse else []),
            "$monai.utils.set_determinism(seed=@seed)",
            "$@run_handlers.attach(resumed=@resume)",
        ],
        "run": ["$@train#trainer.run()"],
    }


def memory_format(layout: Layout, dims: int) -> str:
    """Name of PyTorch's memory format of an order of features, over 2 or 3 axes.

    >>> memory_format("channels_last", 3), memory_format("contiguous", 2)
    ('channels_last_3d', 'contiguous_format')
    """
    if layout == "contiguous":
        return "contiguous_format"
    return "channels_last" if dims == 2 else "channels_last_3d"


def _coarse_keys(plan: Plan) -> tuple[str, ...]:
    return ("locator_spacing", "locator_network") if plan.coarse else ()


def _around(plan: Plan, spacing: Sequence[float]) -> dict[str, Any]:
    """The transforms without chance; of volumes that have a locator, what it will cut out."""
    select = "monai.transforms.SelectItemsd(['image', 'label'])"
    if plan.coarse is None:
        return {"deterministic_transforms": f"$[*@preprocessing.transforms, {select}]"}
    return {
        "around_structures": {
            "_target_": "medsegdiff.data.CropAroundStructuresd",
            "keys": ["image", "label"],
            "size_mm": [round(n * s, 1) for n, s in zip(plan.coarse.box, spacing, strict=True)],
            "margin": MARGIN,
        },
        "deterministic_transforms": "$[@preprocessing.transforms[0], @around_structures, "
        f"*@preprocessing.transforms[1:], {select}]",
    }


def _augmentation(plan: Plan) -> list[dict[str, Any]]:
    both = {"keys": ["image", "label"]}
    image = {"keys": "image"}
    axes = "xyz"[: plan.dims]
    turn = {
        "_target_": "RandAffined",
        **both,
        "prob": 0.85,
        "rotate_range": list(plan.rotation),
        "scale_range": [0.25] * plan.dims,
        "mode": ["bilinear", "nearest"],
        "padding_mode": "border",
    }
    chain = [turn, _pad("@patch_size"), _crop(plan, "@patch_size")]
    if plan.foreground:  # a whole image would take long to turn
        wider = f"$[round({WIDER} * side) for side in @patch_size]"
        middle = {"_target_": "CenterSpatialCropd", **both, "roi_size": "@patch_size"}
        chain = [_pad(wider), _crop(plan, wider), turn, middle]
    chain += [
        {"_target_": "RandFlipd", **both, "prob": 0.5, "spatial_axis": axis} for axis in plan.mirror
    ]
    return [
        *chain,
        {"_target_": "RandGaussianNoised", **image, "prob": 0.2, "std": 0.15},
        {
            "_target_": "RandGaussianSmoothd",
            **image,
            "prob": 0.2,
            **{f"sigma_{axis}": [0.4, 1.0] for axis in axes},
        },
        {"_target_": "RandScaleIntensityd", **image, "prob": 0.3, "factors": 0.25},
        {
            "_target_": "RandAdjustContrastd",
            **image,
            **{"prob": 0.3, "gamma": [0.7, 1.5], "retain_stats": True},
        },
    ]


def _pad(size: str) -> dict[str, Any]:
    both = {"keys": ["image", "label"], "mode": ["edge", "constant"]}
    return {"_target_": "SpatialPadd", **both, "spatial_size": size}


def _crop(plan: Plan, size: str) -> dict[str, Any]:
    both = {"keys": ["image", "label"]}
    if not plan.foreground:
        return {"_target_": "RandSpatialCropd", **both, "roi_size": size, "random_size": False}
    share = {"pos": plan.foreground, "neg": 1.0 - plan.foreground, "num_samples": 1}
    place = {"label_key": "label", "spatial_size": size}
    return {"_target_": "RandCropByPosNegLabeld", **both, **place, **share}


def _train(plan: Plan) -> dict[str, Any]:
    dataset: dict[str, Any] = {"_target_": "Dataset", "data": planes_or_cases(plan, 0)}
    dataset["transform"] = "@train#preprocessing"
    chain: Any = ["@augmentation"]
    if not plan.slices:
        # no random transform changes its input in place: a copy of a whole image is for nothing
        dataset |= {"_target_": "CacheDataset", "progress": False, "copy_cache": False}
        chain = "$[*@deterministic_transforms, @augmentation]"
    several = plan.several_raters
    return {
        "preprocessing": {"_target_": "Compose", "transforms": chain},
        "dataset": dataset,
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@train#dataset",
            "batch_size": "@batch_size",
            "sampler": {
                "_target_": "torch.utils.data.RandomSampler",
                "data_source": "@train#dataset",
                "num_samples": "$@steps_per_epoch * @batch_size",
            },
            "num_workers": "@num_workers",
        },
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "params": "$@network.parameters()",
            "lr": "@learning_rate",
            "weight_decay": 0.03 if plan.dims == 2 else 0.01,
        },
        "total_steps": "$len(@train#dataloader) * @train#trainer#max_epochs",
        "lr_scheduler": {
            "_target_": "medsegdiff.training.cosine_stages",
            "optimizer": "@train#optimizer",
            "stages": "$[min(@anchor_steps, @train#total_steps), "
            "max(@train#total_steps - @anchor_steps, 0)]",
        },
        "loss": {
            "_target_": "medsegdiff.models.DiffusionSegmentationLoss",
            **{"energy_weight": 1.0, "noise_weight": 0.0, "mask_weight": 0.0},
            "anchor_weight": 1.0,
            "dice_weight": 0.0 if several else 1.0,
        },
        "prepare_batch": {
            "_target_": "medsegdiff.training.NoisedMaskPrepareBatch",
            "network": "@network",
            "draws": 1,
            "pure_noise": 0.75 if several else 0.5,
            "raters": "all" if several else "one",
            "anchor_steps": "@anchor_steps",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [
            {
                "_target_": "LrScheduleHandler",
                "lr_scheduler": "@train#lr_scheduler",
                "print_lr": False,
                "epoch_level": False,
            },
            {
                "_target_": "ValidationHandler",
                "validator": "@validate#evaluator",
                "interval": "@val_interval",
                "epoch_level": True,
            },
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": plan.epochs,
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": "@train#loss",
            **{key: f"@train#{key}" for key in ("optimizer", "prepare_batch", "inferer")},
            "train_handlers": "@train#handlers",
            "decollate": False,
        },
    }
