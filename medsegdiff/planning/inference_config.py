"""``configs/inference.yaml`` of a planned bundle, where the network is described."""

from __future__ import annotations

from typing import Any

from medsegdiff.data.around_structures import MARGIN
from medsegdiff.data.manifest import Manifest
from medsegdiff.planning.decisions import Plan
from medsegdiff.planning.fingerprint import Fingerprint


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
        **_coarse_keys(plan),
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
            **({"locator": "@locator", "search_from": 1.0} if plan.coarse else {}),
            **{key: f"@{key}" for key in ("place_mm", "locate", "at", "roi", "anyway")},
            "coarsest_mm": None if of.photographs else round(3.0 * max(of.spacing), 2),
        },
        "segmenter": {
            "_target_": "medsegdiff.cases.CaseSegmenter",
            **{key: f"@{key}" for key in ("bundle", "network", "preprocessing", "inferer")},
            "output": "@output_dir",
            **{key: f"@{key}" for key in _WRITING},
            "expected_mm": _expected_mm(plan, of),
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


def _coarse_keys(plan: Plan) -> dict[str, Any]:
    """The locator, where structures are small in their volumes."""
    if plan.coarse is None:
        return {}
    levels = (plan.coarse.strides, plan.coarse.kernels)
    strides, kernels = ([list(one) for one in of_levels] for of_levels in levels)
    return {
        "locator_spacing": list(plan.coarse.spacing),
        "locator_network": {
            "_target_": "medsegdiff.networks.ImageEncoder",
            "spatial_dims": 3,
            "in_channels": "@channels",
            "num_classes": 2,
            "channels": list(plan.coarse.channels),
            "strides": strides,
            "kernels": kernels,
        },
        "locator": {
            "_target_": "medsegdiff.locating.NetworkLocator",
            "network": "@locator_network",
            "weights": "$@bundle.locator",
            "spacing": "@locator_spacing",
            "margin": MARGIN,
        },
    }


def _expected_mm(plan: Plan, of: Fingerprint) -> list[list[float]]:
    """Greatest extent along each axis of the data set, or of the box that is looked for."""
    if plan.coarse:
        sizes = zip(plan.coarse.box, of.spacing, strict=True)
        return [[0.0, round(n * s, 1)] for n, s in sizes]
    return [[0.0, round(n * s, 1)] for n, s in zip(of.largest, of.spacing, strict=True)]


_SAMPLING = (
    *("members", "steps", "sampler", "sampler_options", "seed", "fusion"),
    *("anchor_share", "noise_scale", "oversampling", "diversity_weight"),
)
_WRITING = (
    *("formats", "save_members", "overwrite", "calibration", "guarantee", "uneven"),
    "channel_series",
)
READ = (
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
