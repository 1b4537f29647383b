"""This project, as a bundle configures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness.contender import Batch, Contender, Loss, Prediction, summarised
from benchmarks.harness.data import Study
from medsegdiff.bundle import Bundle


def medsegdiff(
    study: Study, bundle: Bundle, inference: Mapping[str, Any], name: str = "medsegdiff"
) -> Contender:
    """Image encoded once for each mirror image, then members sampled by the light denoiser.

    ``inference`` changes values of the bundle's ``configs/inference``.
    """
    network, loss = _network_and_loss(study, bundle)
    parser = bundle.parser("inference", dict(inference) | _window(study))
    inferer = parser.get_parsed_content("inferer")

    def predict(networks: Sequence[nn.Module], image: Tensor, case: str) -> Prediction:
        ensemble = inferer.ensemble(image, networks[0], case)
        return Prediction(ensemble.mean, ensemble.labels)

    steps = int(parser.get_parsed_content("steps"))
    mirrors = parser.get_parsed_content("inferer#mirror_axes")
    note = f"the bundle {bundle.name}: {steps} step{'s' if steps > 1 else ''}"
    if mirrors:
        note += f"; its members are shared out over mirror images along axes {list(mirrors)}"
    if inferer.sampling.oversampling > 1:
        note += f", and chosen from {inferer.sampling.oversampling} times as many"
    return Contender(
        name,
        [network],
        loss,
        predict,
        counted=_parts,
        weights="medsegdiff",
        members=inferer.sampling.members,
        steps=steps,
        note=note,
    )


def medsegdiff_anchor(study: Study, bundle: Bundle) -> Contender:
    """The deterministic mask of the same weights: one pass of the encoder."""
    network, loss = _network_and_loss(study, bundle)

    def predict(networks: Sequence[nn.Module], image: Tensor, case: str) -> Prediction:
        logits = networks[0](image[None])
        return summarised(torch.softmax(logits.float(), dim=1))

    return Contender(
        "medsegdiff_anchor",
        [network],
        loss,
        predict,
        counted=_parts,
        weights="medsegdiff",
        note="from the weights of medsegdiff, whose training time and parameters these are",
    )


def _network_and_loss(study: Study, bundle: Bundle) -> tuple[nn.Module, Loss]:
    """Both from one parse of ``train``, since they may share a process."""
    changes: dict[str, Any] = dict(study.changes)
    if study.dims == 2:
        changes["network"] = "$@network_def.to(@device, memory_format=torch.channels_last)"
    parser = bundle.parser("train", changes)
    network: nn.Module = parser.get_parsed_content("network")
    prepare = parser.get_parsed_content("train#prepare_batch")
    criterion = parser.get_parsed_content("train#loss")

    def loss(network: nn.Module, batch: Batch, step: int) -> Tensor:
        image, targets, args, kwargs = prepare(batch, batch["image"].device)
        value: Tensor = criterion(network(image, *args, **kwargs), targets)
        return value

    return network, loss


def _window(study: Study) -> dict[str, Any]:
    return {"inferer#window": [64, 64]} if study.dims == 2 else {}


def _parts(network: nn.Module) -> dict[str, nn.Module]:
    return {name: network.get_submodule(name) for name in ("encoder", "denoiser")}
