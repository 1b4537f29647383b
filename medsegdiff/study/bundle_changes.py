"""The bundles of a study: of each fold's network, and of all of them together."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from medsegdiff.bundle.bundle import WEIGHTS, Bundle, check_keys
from medsegdiff.bundle.network import read_weights
from medsegdiff.bundle.trusted_bundles import trust
from medsegdiff.core.atomic_files import digest, written_aside
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.models.fold_ensemble import joined_weights

OWN = ("bundle_root", "dataset_dir", "output_dir", "fold", "resume", "device", "calibration")
"""Keys that a study sets itself."""

LEFT_OUT = ("*.pt", "calibration.json", "runs", "eval", "__pycache__")
"""Files of a bundle that its untrained copy goes without."""


def shared_out(
    bundle: Bundle, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the training, and those of segmenting; a key that both have is in both.

    Raises:
        UsageError: a key is in neither configuration, or is set by the study itself.
    """
    taken = [key for key in overrides if key in OWN]
    if taken:
        rule = "is set by the study itself"
        raise UsageError(f"--set {taken[0]}", rule, "Leave it out")
    training, inference = (
        {key: value for key, value in overrides.items() if _has(bundle, name, key)}
        for name in ("train", "inference")
    )
    for key in overrides:
        if key not in training and key not in inference:
            check_keys(bundle.parser("train"), {key: None}, bundle.config("train"))
    return training, inference


def _has(bundle: Bundle, name: str, key: str) -> bool:
    try:
        check_keys(bundle.parser(name), {key: None}, bundle.config(name))
    except UsageError:
        return False
    return True


def files_digest(bundle: Bundle) -> str:
    """SHA-256 of a bundle's configurations."""
    files = sorted(path for path in (bundle.root / "configs").rglob("*") if path.is_file())
    return digest(files)


def copy_untrained(bundle: Bundle, target: Path) -> None:
    """Copy a bundle without its weights and what was made with them."""
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(bundle.root, target, ignore=ignored, dirs_exist_ok=True)


def write_single(untrained: Bundle, weights: Path, changes: Mapping[str, Any], to: Bundle) -> None:
    """Write the bundle with the network of one fold.

    Args:
        untrained: Bundle without weights.
        weights: Path of the weights; those of a locator lie beside them.
        changes: Keys of ``configs/inference`` -> values.
        to: Bundle to write.
    """
    copy_untrained(untrained, to.root)
    _change_inference(to, changes)
    trust(to.root)
    with written_aside(to.root / WEIGHTS) as aside:
        shutil.copyfile(weights, aside)
    located = weights.with_name(to.locator.name)
    if located.is_file():
        with written_aside(to.locator) as aside:
            shutil.copyfile(located, aside)


def write_joined(
    untrained: Bundle, singles: Sequence[Bundle], changes: Mapping[str, Any], to: Bundle
) -> None:
    """Write the bundle whose network is the ensemble of several; a single one stays as it is.

    Args:
        untrained: Bundle without weights.
        singles: Bundles of the networks.
        changes: Keys of ``configs/inference`` -> values.
        to: Bundle to write.

    Raises:
        InputError: the bundle does not load its network by ``network_def``.
    """
    if len(singles) == 1:
        return write_single(untrained, singles[0].weights(), changes, to)
    copy_untrained(untrained, to.root)
    _change_inference(to, changes, len(singles))
    trust(to.root)
    with written_aside(to.root / WEIGHTS) as aside:
        torch.save(joined_weights(read_weights(one) for one in singles), aside)
    if all(one.locator.is_file() for one in singles):
        each = [torch.load(one.locator, weights_only=True) for one in singles]
        with written_aside(to.locator) as aside:
            torch.save([weights for of_one in each for weights in of_one], aside)


def _change_inference(bundle: Bundle, changes: Mapping[str, Any], folds: int = 1) -> None:
    """Set keys of ``configs/inference``, and let its network be the ensemble of several folds.

    The training reads ``network_def``, which remains the single network.
    """
    if not changes and folds == 1:
        return
    path = bundle.config("inference")
    parser = ConfigParser(ConfigParser.load_config_file(path))
    for key, value in changes.items():
        parser[key.replace("::", "#")] = value
    if folds > 1:
        loaded = parser.config.get("network")
        if not isinstance(loaded, str) or "@network_def" not in loaded:
            rule = "does not load its network as load_network(@network_def, ...)"
            raise InputError(path, rule, "Write it as in the bundles that ship, or use --fold")
        parser["network"] = loaded.replace("@network_def", "@fold_ensemble")
        parser["fold_ensemble"] = {
            "_target_": "medsegdiff.models.FoldEnsemble",
            "network": "@network_def",
            "folds": folds,
        }
    kind = "json" if path.suffix == ".json" else "yaml"
    further: dict[str, Any] = {} if kind == "json" else {"sort_keys": False, "width": 100}
    with written_aside(path) as aside:
        ConfigParser.export_config_file(parser.config, str(aside), fmt=kind, **further)
