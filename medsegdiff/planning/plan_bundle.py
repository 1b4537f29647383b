"""Plan a bundle for a data set: what ``medsegdiff plan`` does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor, nn

from medsegdiff.bundle.bundle import Bundle, checked_device
from medsegdiff.bundle.trusted_bundles import trust_own
from medsegdiff.core.errors import InputError, UsageError, surfacing_input_errors
from medsegdiff.core.peak_memory import forget_peak_memory, peak_memory_mb
from medsegdiff.data.fitness import CheckReport, check
from medsegdiff.data.manifest import Case, Manifest, load_manifest
from medsegdiff.models.precision import autocast
from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.planning.bundle_files import write_bundle
from medsegdiff.planning.decisions import Layout, Plan, decide, median_shape
from medsegdiff.planning.fingerprint import Fingerprint, fingerprint_of
from medsegdiff.planning.inference_config import inference
from medsegdiff.planning.training_config import memory_format, training
from medsegdiff.planning.training_time import (
    Times,
    faster,
    timed,
    with_fewer_features,
    with_smaller_batch,
)
from medsegdiff.planning.validation_config import EVERY
from medsegdiff.training.seeding import seeded

logger = logging.getLogger(__name__)

Progress = Callable[[str], Callable[[Sequence[Case]], Iterable[Case]]]

TIMED_STEPS = 3
"""Training steps of each stage that are timed, after one that is not."""


def plan(
    data: str | Path,
    output: str | Path,
    *,
    hours: float = 1.0,
    memory: float | None = None,
    device: str = "auto",
    progress: Progress = lambda _: iter,
) -> Bundle:
    """Write a bundle made for a data set, and say why it is as it is.

    The data set is checked, every case is read, and a few training steps are timed on the device.

    Args:
        data: Path of the data set's description, its folder, or a known name.
        output: Folder of the bundle; its name becomes the bundle's.
        hours: Hours of training of one network.
        memory: Greatest memory of a training step, in GiB; None: any.
        device: Name of a torch device, or ``auto``.
        progress: Function that makes a wrapper of cases from a description.

    Returns:
        The bundle, without weights.

    Raises:
        InputError: the data set is not fit to train on, or ``output`` holds a bundle already.
        UsageError: the hours or the memory are not positive, or the device cannot be used.
    """
    root = Path(output)
    if hours <= 0.0 or (memory is not None and memory <= 0.0):
        raise UsageError("hours and memory", "must be above 0", "Give for instance --hours 2")
    if (root / "configs").exists():
        rule = "already holds a bundle"
        raise InputError(root, rule, "Choose another folder, or remove it")
    on = checked_device(device)
    manifest = load_manifest(data)
    refuse_unfit(check(manifest, progress("checking")), manifest)
    fingerprint = fingerprint_of(manifest, progress("measuring"))
    chosen = decide(fingerprint)
    place = str(Path(data).resolve()) if Path(data).exists() else str(data)
    chosen = _fitted(chosen, fingerprint, manifest, root, on, hours, memory)
    write_bundle(root, chosen, fingerprint, manifest, place)
    trust_own(root)
    return Bundle(root.resolve())


def refuse_unfit(report: CheckReport, manifest: Manifest) -> None:
    """Refuse a data set that has errors, naming the first ones.

    Raises:
        InputError: there are errors.
    """
    errors = [problem for problem in report.problems if problem.severity == "error"]
    if errors:
        named = "; ".join(f"{one.case}: {one.rule}".removeprefix(": ") for one in errors[:3])
        more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
        rule = f"is not fit to train on: {named}{more}"
        raise InputError(manifest.name, rule, "medsegdiff check lists all, with what to do")


def _fitted(
    chosen: Plan,
    fingerprint: Fingerprint,
    manifest: Manifest,
    root: Path,
    device: torch.device,
    hours: float,
    memory: float | None,
) -> Plan:
    """The plan, made smaller until its steps fit into the memory and the hours, with its epochs."""
    chosen = _with_locator_steps(chosen, len(manifest.channels), device, hours)
    if chosen.coarse:
        locating = chosen.coarse.steps * chosen.coarse.seconds / 3600.0
        hours = max(hours - locating, 0.5 * hours)
    while True:
        times, used = time_steps(chosen, fingerprint, manifest, device)
        planned = timed(chosen, times, hours)
        if memory is not None and used > memory:
            chosen = planned.smaller()
            if chosen == planned:
                rule = f"a training step takes {used:.1f} GiB even with the smallest patch"
                raise InputError(root, rule, "Allow more --memory")
            logger.info("a step takes %.1f GiB, more than %.1f: planned smaller", used, memory)
            continue
        chosen = with_smaller_batch(planned)
        if chosen is planned:
            chosen = with_fewer_features(planned)
        if chosen is planned:
            break
        logger.info(
            "too few steps in the time: %d patches a step, %d features at the image's size",
            chosen.batch,
            chosen.channels[0],
        )
    reasons = dict(planned.reasons or {})
    reasons["memory_gib"] = "greatest memory of the process while training steps were timed"
    return replace(planned, memory_gib=round(used, 2), reasons=reasons)


LOCATING = 0.1
"""Share of the hours in which a locator is trained at most."""

LOCATOR_STEPS = (50, 1500)
"""Least and greatest number of training steps of a locator."""


def _with_locator_steps(chosen: Plan, channels: int, device: torch.device, hours: float) -> Plan:
    """The plan with the number of training steps of its locator, if it has one."""
    if chosen.coarse is None:
        return chosen
    coarse = chosen.coarse
    network = ImageEncoder(
        3, channels, 2, coarse.channels, strides=coarse.strides, kernels=coarse.kernels
    ).to(device)
    image = torch.randn(1, channels, *coarse.shape, device=device)

    def step() -> None:
        with autocast("auto", device, 1):
            network(image).anchor.float().square().mean().backward()

    step()
    seconds = _seconds(step, device)
    least, most = LOCATOR_STEPS
    steps = min(most, max(least, int(LOCATING * 3600.0 * hours / seconds)))
    return replace(chosen, coarse=replace(coarse, steps=steps, seconds=seconds))


def time_steps(
    chosen: Plan, fingerprint: Fingerprint, manifest: Manifest, device: torch.device
) -> tuple[Times, float]:
    """Times of the training, and the memory of a step in GiB.

    The steps, patches and validations are those of training, of random images.

    Args:
        chosen: Plan whose network is built.
        fingerprint: Fingerprint of the data set.
        manifest: Data set.
        device: Device that the steps run on.
    """
    with seeded(0, device), surfacing_input_errors():
        return _time_steps(chosen, fingerprint, manifest, device)


def _time_steps(
    chosen: Plan, fingerprint: Fingerprint, manifest: Manifest, device: torch.device
) -> tuple[Times, float]:
    _forget_peak(device)
    parser = _parts_of_training(chosen, fingerprint, manifest)
    network = parser.get_parsed_content("network").to(device).train()
    loss = parser.get_parsed_content("train#loss")
    prepare = parser.get_parsed_content("train#prepare_batch")
    augmentation = parser.get_parsed_content("augmentation")
    inferer = parser.get_parsed_content("validate#inferer")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    batch = _random_batch(chosen, fingerprint, manifest)

    def step() -> None:
        image, targets, _, given = prepare(batch, device)
        optimizer.zero_grad()
        loss(network(image, **given), targets).backward()
        optimizer.step()

    def median(do: Callable[[], None]) -> float:
        do()
        return sorted(_seconds(do, device) for _ in range(TIMED_STEPS))[TIMED_STEPS // 2]

    def encoder_in(layout: Layout) -> float:
        _order(network, layout, chosen.dims)
        return median(step)

    shape = median_shape(chosen, fingerprint)
    item = _random_item(shape, fingerprint, manifest)
    patches = chosen.batch * median(lambda: augmentation(dict(item)))
    last = encoder_in("channels_last")
    contiguous = encoder_in("contiguous") if device.type == "cpu" else None
    layout = faster(last, contiguous)
    _order(network, layout, chosen.dims)
    prepare.anchor_steps = prepare.steps  # the next step is the first of the denoiser
    denoiser = median(step)
    used = _peak_gib(device)
    network.eval()
    seen = torch.as_tensor(item["image"].as_tensor())
    part = seen[(slice(None), *(slice(0, side + side // 2) for side in inferer.window))].to(device)
    validation = _seconds(lambda: inferer.ensemble(part, network, "timed"), device)
    validation *= _windows(seen.shape[1:], inferer) / _windows(part.shape[1:], inferer)
    validation *= _held_out_items(fingerprint, chosen, manifest)
    if contiguous is None or layout == "channels_last":
        return Times(last, denoiser, patches, validation, layout, contiguous), used
    return Times(contiguous, denoiser, patches, validation, layout, last), used


def _windows(size: Sequence[int], inferer: Any) -> int:
    """Number of windows of an image of this size, which overlap as the inferer's do."""
    steps = (max(1, int(side * (1.0 - inferer.overlap))) for side in inferer.window)
    over = (max(0, n - side) for n, side in zip(size, inferer.window, strict=True))
    return prod(1 + ceil(n / step) for n, step in zip(over, steps, strict=True))


def _order(network: nn.Module, layout: Layout, dims: int) -> None:
    """Put the weights in this order in memory; features follow."""
    network.to(memory_format=getattr(torch, memory_format(layout, dims)))  # type: ignore[call-overload]


def _parts_of_training(chosen: Plan, of: Fingerprint, manifest: Manifest) -> ConfigParser:
    """What a training step is made of, as the planned bundle will have it."""
    described, glue = (
        inference(chosen, of, manifest),
        training(chosen, of, "timed", "timed"),
    )
    parts = ("channels", "num_classes", "process", "target", "samples_per_target", "precision")
    settings = {key: described[key] for key in (*parts, "network_def")}
    settings |= {
        key: glue[key] for key in ("patch_size", "random_transforms", "augmentation", "seed")
    }
    settings |= {"network": "@network_def", "anchor_steps": 4 * TIMED_STEPS}
    settings["train"] = {key: glue["train"][key] for key in ("loss", "prepare_batch")}
    settings["validate"] = {"inferer": glue["validate"]["inferer"]}
    return ConfigParser(settings)


def _seconds(do: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _held_out_items(fingerprint: Fingerprint, chosen: Plan, manifest: Manifest) -> int:
    """Number of images, or of a third of the slices, that a fold validates on."""
    cases = fingerprint.cases / max(len(manifest.folds), 2)
    if not chosen.slices:
        return max(1, round(cases))
    axis = "RAS".index(chosen.axcodes[-1]) if chosen.axcodes else -1
    shape = chosen.coarse.box if chosen.coarse else fingerprint.shape
    return max(1, round(cases * shape[axis] / EVERY))


def _random_batch(chosen: Plan, fingerprint: Fingerprint, manifest: Manifest) -> dict[str, Tensor]:
    item = _random_item(chosen.patch, fingerprint, manifest)
    return {
        key: torch.stack([torch.as_tensor(value.as_tensor())] * chosen.batch)
        for key, value in item.items()
    }


def _random_item(
    shape: Sequence[int], fingerprint: Fingerprint, manifest: Manifest
) -> dict[str, MetaTensor]:
    """An image (C, *shape) and labels (M, *shape) of noise."""
    classes = len(manifest.labels)
    label = torch.randint(classes, (fingerprint.raters, *shape), dtype=torch.uint8)
    image = torch.randn(len(manifest.channels), *shape)
    return {"image": MetaTensor(image), "label": MetaTensor(label)}


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    forget_peak_memory()


def _peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**30
    return peak_memory_mb() / 1024.0
