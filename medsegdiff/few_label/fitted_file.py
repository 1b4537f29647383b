"""The file of perceptrons fitted to a few labelled cases, ``few_labels.pt``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError
from medsegdiff.few_label.learn_from_few import FittedPerceptrons
from medsegdiff.few_label.voxel_features import FeatureLocation, VoxelFeatures
from medsegdiff.few_label.voxel_mlps import VoxelMLPs
from medsegdiff.models.image_diffusion import ImageDiffusion

FITTED = "few_labels.pt"


def save_fitted(path: Path, learned: FittedPerceptrons, bundle: Bundle, cases: list[str]) -> None:
    """Write perceptrons, which features they take, and of which cases they learned.

    Args:
        path: Path of the file.
        learned: Perceptrons and features to write.
        bundle: Bundle whose weights give the features.
        cases: Names of the cases that the perceptrons learned from.
    """
    mlps, features = learned.mlps, learned.features
    content = {
        "state": {name: value.cpu() for name, value in mlps.state_dict().items()},
        "locations": [list(location) for location in features.locations],
        "seed": features.seed,
        "weights_hash": bundle.weights_hash(),
        "cases": cases,
    }
    with written_aside(path) as aside:
        torch.save(content, aside)


def load_fitted(
    path: Path, network: ImageDiffusion, bundle: Bundle
) -> tuple[FittedPerceptrons, list[str]]:
    """What ``save_fitted`` wrote: perceptrons on the network's device, and the cases that taught.

    Raises:
        InputError: it cannot be read, or was fitted to other weights than the bundle has.
    """
    remedy = "Give the few_labels.pt that an earlier run wrote"
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        hash_of_weights, state = content["weights_hash"], content["state"]
        locations = [FeatureLocation(*location) for location in content["locations"]]
        sizes = [value.shape for name, value in sorted(state.items()) if "weights" in name]
    except Exception as error:  # pickle and zip have many ways to fail
        rule = f"cannot be read as fitted perceptrons ({type(error).__name__})"
        raise InputError(path, rule, remedy) from error
    if hash_of_weights != bundle.weights_hash():
        rule = f"was fitted to other weights than {bundle.name} has"
        raise InputError(path, rule, "Use the bundle that it was fitted with, or fit again")
    members, inputs, _ = sizes[0]
    hidden = [size[2] for size in sizes[:-1]]
    mlps = VoxelMLPs(inputs, sizes[-1][2], members, hidden)
    mlps.load_state_dict(state)
    mlps.to(next(network.parameters()).device).eval()
    features = VoxelFeatures(network, locations, content["seed"])
    return FittedPerceptrons(features, mlps, {}), list(content["cases"])
