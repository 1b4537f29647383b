"""The files of a planned bundle: configurations, metadata, card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from monai import __version__ as monai_version

from medsegdiff import __version__
from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.core.atomic_files import write_json, write_text
from medsegdiff.data.manifest import Manifest
from medsegdiff.planning.decisions import Plan
from medsegdiff.planning.fingerprint import Fingerprint

SHARED = ("calibrate.yaml", "evaluate.yaml", "member_agreement.yaml", "logging.conf")
"""Configurations that every bundle has alike, but for the name of its data."""

EVERY = 3
"""Interval of the held-out slices that a training is validated on."""

MARGIN = 1.25
"""Size that is cut out of a large image before it is turned, relative to the patch."""

SHIPPED = "hippocampus_mr"
"""Bundle that they are taken from."""


def write_bundle(
    root: Path, plan: Plan, fingerprint: Fingerprint, manifest: Manifest, data: str
) -> None:
    """Write a bundle that trains, segments, calibrates and evaluates as it is.

    Args:
        root: Folder of the bundle, whose name is its own.
        plan: Plan of the bundle.
        fingerprint: Fingerprint of the data set.
        manifest: Data set.
        data: Path or name of the data set, which becomes the default of ``dataset_dir``.
    """
    configs = root / "configs"
    _write_yaml(
        configs / "inference.yaml",
        "Samples an ensemble of masks.",
        inference(plan, fingerprint, manifest),
    )
    _write_yaml(configs / "train.yaml", "Trains the segmenter.", training(plan, root.name, data))
    shipped = load_bundle(SHIPPED).root / "configs"
    for name in SHARED:
        text = (shipped / name).read_text(encoding="utf-8")
        text = text.replace(f"dataset_dir: {SHIPPED}", f"dataset_dir: {_quoted(data)}")
        write_text(configs / name, text)
    write_json(configs / "metadata.json", metadata(root.name, plan, manifest))
    write_json(root / "plan.json", {"plan": plan.to_json(), "fingerprint": fingerprint.to_json()})
    write_text(root / "plan.md", plan_page(root.name, plan, fingerprint))
    write_text(root / "docs" / "README.md", card(root.name, plan, manifest))
    write_text(
        root / "docs" / "data_license.txt", f"{manifest.name}: {manifest.licence or 'not known'}\n"
    )
    write_text(root / "LICENSE", "The licence of the trained weights follows that of the data.\n")


def inference(plan: Plan, of: Fingerprint, manifest: Manifest) -> dict[str, Any]:
    """Content of ``configs/inference.yaml``, where the network is described."""
    several = plan.several_raters
    return {
        "imports": ["$import torch", "$import medsegdiff"],
        "bundle_root": ".",
        "dataset_dir": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "members": 16,
        "steps": 1,
        "sampler": "ddim",
        "sampler_options": {"eta": 1.0},
        "compilation": "off",
        "seed": 0,
        "fusion": "mean",
        "anchor_share": 0.5,
        "noise_scale": 1.0,
        "oversampling": 1,
        "diversity_weight": 1.0,
        "formats": ["nifti"],
        "save_members": False,
        "overwrite": False,
        "calibration": "auto",
        "uneven": "refuse",
        "channel_series": None,
        "guarantee": None,
        "locate": "auto",
        "at": None,
        "roi": None,
        "anyway": False,
        "place_mm": _place_mm(plan),
        "bundle": "$medsegdiff.bundle.load_bundle(@bundle_root)",
        "channels": len(manifest.channels),
        "num_classes": len(manifest.labels),
        "process": {
            "_target_": "medsegdiff.diffusion.GaussianProcess",
            "schedule": "cosine",
            "n_timesteps": 1000,
            "input_scale": 0.5,
        },
        "target": "x_0",
        "samples_per_target": 4 if several else 2,
        "precision": "auto",
        "network_def": _network(plan),
        "spacing": list(plan.spacing),
        "manifest": None,
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(plan, of, manifest)},
        "network": "$medsegdiff.bundle.load_network(@network_def, @bundle, @device, @compilation)",
        "inferer": {
            "_target_": "medsegdiff.segmentation.EnsembleInferer",
            "window": list(plan.window),
            "mirror_axes": list(plan.test_mirror),
            **{key: f"@{key}" for key in _SAMPLING},
        },
        "placing": {
            "_target_": "medsegdiff.cases.Placing",
            **{key: f"@{key}" for key in ("place_mm", "locate", "at", "roi", "anyway")},
            "coarsest_mm": None if of.photographs else round(3.0 * max(of.spacing), 2),
        },
        "segmenter": {
            "_target_": "medsegdiff.cases.CaseSegmenter",
            **{key: f"@{key}" for key in ("bundle", "network", "preprocessing", "inferer")},
            "output": "@output_dir",
            **{key: f"@{key}" for key in _WRITING},
            "expected_mm": _expected_mm(of),
            "placing": "@placing",
        },
        "run": ["$medsegdiff.cases.raise_for_failures(@segmenter.segment_inputs([@dataset_dir]))"],
    }


def _place_mm(plan: Plan) -> list[float]:
    """Size of the box around a point that a user gives: what the network sees at once."""
    if len(plan.spacing) != 3:
        return []
    flat = [round(n * s, 1) for n, s in zip(plan.window, plan.spacing, strict=False)]
    return flat if plan.dims == 3 else [*flat, flat[0]]


def _expected_mm(of: Fingerprint) -> list[list[float]]:
    """Greatest extent along each axis of the data set."""
    return [[0.0, round(n * s, 1)] for n, s in zip(of.largest, of.spacing, strict=True)]


_SAMPLING = (
    *("members", "steps", "sampler", "sampler_options", "seed", "fusion"),
    *("anchor_share", "noise_scale", "oversampling", "diversity_weight"),
)
_WRITING = (
    *("formats", "save_members", "overwrite", "calibration", "guarantee", "uneven"),
    "channel_series",
)
_READ = (
    *("channels", "num_classes", "process", "target", "samples_per_target", "precision"),
    *("network_def", "spacing", "preprocessing"),
)


def _network(plan: Plan) -> dict[str, Any]:
    strides, kernels = ([list(one) for one in levels] for levels in (plan.strides, plan.kernels))
    conditioning = {"conditioning": "concat", "latent": 4} if plan.several_raters else {}
    return {
        "_target_": "medsegdiff.models.DiffusionSegmenter",
        "encoder": {
            "_target_": "medsegdiff.networks.ImageEncoder",
            "spatial_dims": plan.dims,
            "in_channels": "@channels",
            "num_classes": "@num_classes",
            "channels": list(plan.channels),
            "strides": strides,
            "kernels": kernels,
        },
        "denoiser": {
            "_target_": "medsegdiff.networks.Denoiser",
            "spatial_dims": plan.dims,
            "num_classes": "@num_classes",
            "condition_channels": "$@network_def#encoder.channels",
            "channels": list(plan.denoiser_channels),
            "stride": list(plan.stride),
            "strides": strides,
            "kernels": kernels,
            "further_inputs": 1,
            **conditioning,
        },
        **{key: f"@{key}" for key in ("process", "target", "samples_per_target", "precision")},
    }


def _preprocessing(plan: Plan, of: Fingerprint, manifest: Manifest) -> list[dict[str, Any]]:
    both = {"keys": ["image", "label"], "allow_missing_keys": True}
    chain: list[dict[str, Any]] = [
        {
            "_target_": "medsegdiff.data.LoadCased",
            "spatial_dims": manifest.spatial_dims,
            "channels": "@channels",
            "manifest": "@manifest",
        }
    ]
    if plan.axcodes:
        chain.append({"_target_": "Orientationd", **both, "axcodes": plan.axcodes, "labels": None})
    if plan.spacing:
        mode = ["bilinear", "nearest"]
        chain.append({"_target_": "Spacingd", **both, "pixdim": "@spacing", "mode": mode})
    if plan.normalisation == "ct":
        mean, deviation, low, high = of.intensity[0]
        limits = [round((value - mean) / max(deviation, 1e-6), 4) for value in (low, high)]
        return [
            *chain,
            {
                "_target_": "ScaleIntensityRanged",
                **{"keys": "image", "a_min": low, "a_max": high, "clip": True},
                **{"b_min": limits[0], "b_max": limits[1]},
            },
        ]
    channel_wise = {"channel_wise": True} if len(manifest.channels) > 1 else {}
    return [*chain, {"_target_": "NormalizeIntensityd", "keys": "image", **channel_wise}]


def training(plan: Plan, name: str, data: str) -> dict[str, Any]:
    """Content of ``configs/train.yaml``."""
    layout = "channels_last" if plan.dims == 2 else "channels_last_3d"
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
        **{key: f"%configs/inference.yaml#{key}" for key in _READ},
        "network": f"$@network_def.to(@device, memory_format=torch.{layout})",
        "patch_size": list(plan.patch),
        "deterministic_transforms": "$[*@preprocessing.transforms, "
        "monai.transforms.SelectItemsd(['image', 'label'])]",
        "random_transforms": _augmentation(plan),
        "batch_size": plan.batch,
        "num_workers": 0,
        "learning_rate": 0.001,
        "val_interval": plan.val_interval,
        "steps_per_epoch": plan.steps_per_epoch,
        "anchor_steps": plan.anchor_steps,
        "train": _train(plan),
        "ema": {
            "_target_": "ignite.handlers.EMAHandler",
            "model": "@network",
            **{"momentum": 0.002, "momentum_warmup": 0.1, "warmup_iters": 500},
        },
        "validate": _validate(plan),
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
            "$monai.utils.set_determinism(seed=@seed)",
            "$@run_handlers.attach(resumed=@resume)",
        ],
        "run": ["$@train#trainer.run()"],
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
        wider = f"$[round({MARGIN} * side) for side in @patch_size]"
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
        {"_target_": "ToTensord", **both, "track_meta": False},
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


def _items(plan: Plan, split: int) -> str:
    """The expression for the training or held-out cases of a run."""
    if plan.slices:
        chain = "monai.transforms.Compose(@deterministic_transforms)"
        every = f", every={EVERY}" if split else ""
        return f"$medsegdiff.data.cut_into_planes(@split[{split}], {chain}{every})"
    return f"$medsegdiff.data.datalist(@split[{split}])"


def _train(plan: Plan) -> dict[str, Any]:
    dataset: dict[str, Any] = {"_target_": "Dataset", "data": _items(plan, 0)}
    dataset["transform"] = {"_target_": "Compose", "transforms": "@random_transforms"}
    if not plan.slices:
        dataset |= {"_target_": "CacheDataset", "progress": False}
        dataset["transform"]["transforms"] = "$@deterministic_transforms + @random_transforms"
    several = plan.several_raters
    return {
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


def _validate(plan: Plan) -> dict[str, Any]:
    majority = "raters.mode(dim=0, keepdim=True).values"  # the class that most raters chose
    dataset: dict[str, Any] = {"_target_": "CacheDataset", "data": _items(plan, 1)}
    dataset |= {"progress": False, "transform": {"_target_": "Compose", "transforms": []}}
    transforms: list[Any] = [] if plan.slices else ["@deterministic_transforms"]
    dataset["transform"]["transforms"] = transforms[0] if transforms else []
    if plan.several_raters:
        one = {"_target_": "Lambdad", "keys": "label", "func": f"$lambda raters: {majority}"}
        dataset["transform"]["transforms"] = (
            [one] if plan.slices else "$[*@deterministic_transforms, @validate#majority]"
        )
    discrete = {"_target_": "AsDiscreted", "to_onehot": "@num_classes"}
    found: dict[str, Any] = {
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
                {"_target_": "medsegdiff.data.LeaveOutUnknownd"},
                {**discrete, "keys": "label"},
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "$@ema.ema_model",
            "inferer": "@validate#inferer",
            "postprocessing": "@validate#postprocessing",
            "key_val_metric": {
                "val_mean_dice": {
                    "_target_": "MeanDice",
                    "include_background": False,
                    "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
                }
            },
        },
    }
    if plan.several_raters and not plan.slices:
        found["majority"] = {
            "_target_": "Lambdad",
            "keys": "label",
            "func": f"$lambda raters: {majority}",
        }
    return found


def metadata(name: str, plan: Plan, manifest: Manifest) -> dict[str, Any]:
    """Content of ``configs/metadata.json``."""
    kind = "2D images or slices" if plan.dims == 2 else "volumes"
    labels = ", ".join(f"{v} {label}" for v, label in sorted(manifest.labels.items()))
    shape = ["*"] * plan.dims
    ours = {"is_patch_data": False, "dtype": "float32", "value_range": [], "spatial_shape": shape}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": "planned"},
        "monai_version": monai_version,
        "pytorch_version": "2.9.0",
        "numpy_version": "2.0.0",
        "required_packages_version": {"medsegdiff": __version__},
        "name": name,
        "task": f"Ensemble segmentation of {manifest.name}",
        "description": f"Samples a set of plausible masks of {kind}: {labels}.",
        "authors": "planned by medsegdiff",
        "copyright": "as the data",
        "data_source": manifest.reference or manifest.name,
        "data_type": "nifti",
        "image_classes": ", ".join(manifest.channels),
        "label_classes": labels,
        "pred_classes": f"{len(manifest.labels)} channels, one a class",
        "eval_metrics": {},
        "intended_use": "Research only. Not a medical device, not for clinical decisions.",
        "references": [],
        "network_data_format": {
            "inputs": {
                "image": {
                    **{"type": "image", "format": "magnitude", "modality": manifest.channels[0]},
                    "num_channels": len(manifest.channels),
                    **ours,
                    "channel_def": {str(i): name for i, name in enumerate(manifest.channels)},
                }
            },
            "outputs": {
                "pred": {
                    **{"type": "image", "format": "segmentation"},
                    "num_channels": len(manifest.labels),
                    **ours,
                    "channel_def": {str(v): label for v, label in manifest.labels.items()},
                }
            },
        },
    }


def plan_page(name: str, plan: Plan, fingerprint: Fingerprint) -> str:
    """The plan in words, ``plan.md``: each decision and its reason."""
    rows = "\n".join(
        f"| `{key}` | {_value(plan, key)} | {reason} |"
        for key, reason in (plan.reasons or {}).items()
    )
    return (
        f"# Plan of {name}\n\n"
        f"For {fingerprint.name}: {fingerprint.cases} labelled cases of {fingerprint.patients} "
        f"patients, median size {' x '.join(map(str, fingerprint.shape))}, spacing "
        f"{' x '.join(f'{s:.3g}' for s in fingerprint.spacing)}"
        f"{'' if fingerprint.photographs else ' mm'}.\n\n"
        f"| decision | value | reason |\n| --- | --- | --- |\n{rows}\n\n"
        f"Levels of the encoder: strides {list(map(list, plan.strides))}, kernels "
        f"{list(map(list, plan.kernels))}, widths {list(plan.channels)}. Memory of a training "
        f"step: about {plan.memory_gib:.1f} GiB.\n"
    )


def card(name: str, plan: Plan, manifest: Manifest) -> str:
    """The model card, ``docs/README.md``, before training."""
    return (
        f"# {name}\n\nA diffusion ensemble for {manifest.name}, planned from its data; "
        "[plan.md](../plan.md) says why it is as it is. It has no weights yet: train it by "
        f"`medsegdiff train`, or by `medsegdiff fit`.\n\nNetwork of {plan.dims} dimensions; "
        f"classes: {', '.join(label for v, label in manifest.labels.items() if v)}. Research "
        "only. Not a medical device.\n"
    )


def _value(plan: Plan, key: str) -> str:
    special: dict[str, Any] = {
        "dims": f"{plan.dims}D{', slice by slice' if plan.slices else ''}",
        "raters": "all at once" if plan.several_raters else "one",
        "spacing": " x ".join(f"{s:g}" for s in plan.spacing) or "as it is",
        "epochs": plan.epochs,
        "first_level": " x ".join(f"1/{step}" for step in plan.strides[0]),
    }
    value = special[key] if key in special else getattr(plan, key)
    return " x ".join(map(str, value)) if isinstance(value, tuple) and value else str(value)


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_flow_style=True).removesuffix("...\n").strip()


def _write_yaml(path: Path, title: str, content: dict[str, Any]) -> None:
    body = yaml.safe_dump(content, sort_keys=False, width=110, default_flow_style=None)
    write_text(path, f"# {title} Planned; plan.md says why.\n{body}")
