"""The files of a planned bundle: configurations, metadata, card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from monai import __version__ as monai_version

from medsegdiff import __version__
from medsegdiff.bundle.bundle import ENGINES, load_bundle
from medsegdiff.bundle.bundle_checks import EXEMPTIONS
from medsegdiff.core.atomic_files import write_json, write_text
from medsegdiff.data.manifest import Manifest
from medsegdiff.planning.decisions import Plan
from medsegdiff.planning.fingerprint import Fingerprint
from medsegdiff.planning.inference_config import inference
from medsegdiff.planning.training_config import training

SHARED = (
    *("calibrate.yaml", "evaluate.yaml", "member_agreement.yaml", "multi_gpu_train.yaml"),
    "logging.conf",
)
"""Configurations that every bundle has alike, but for the name of its data."""

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
        engines=_engines(),
    )
    _write_yaml(
        configs / "train.yaml",
        "Trains the segmenter.",
        training(plan, fingerprint, root.name, data),
    )
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
        EXEMPTIONS: {
            "torchscript": load_bundle(SHIPPED).metadata[EXEMPTIONS]["torchscript"],
        },
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
    }
    if plan.coarse:
        special["coarse"] = f"box of {' x '.join(map(str, plan.coarse.box))} voxels"
    value = special[key] if key in special else getattr(plan, key)
    return " x ".join(map(str, value)) if isinstance(value, tuple) and value else str(value)


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_flow_style=True).removesuffix("...\n").strip()


def _engines() -> str:
    """The part of ``inference.yaml`` for MONAI's engines, which all bundles have alike."""
    text = load_bundle(SHIPPED).config("inference").read_text(encoding="utf-8")
    return "".join(text.partition(ENGINES)[1:])


def _write_yaml(path: Path, title: str, content: dict[str, Any], engines: str = "") -> None:
    body = yaml.safe_dump(content, sort_keys=False, width=110, default_flow_style=None)
    write_text(path, f"# {title} Planned; plan.md says why.\n{body}{engines}")
