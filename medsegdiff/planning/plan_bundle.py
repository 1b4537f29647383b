"""Plan a bundle for a data set: what ``medsegdiff plan`` does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from medsegdiff.bundle.bundle import Bundle, checked_device
from medsegdiff.core.errors import InputError, UsageError, surfacing_input_errors
from medsegdiff.core.peak_memory import forget_peak_memory, peak_memory_mb
from medsegdiff.data.fitness import CheckReport, check
from medsegdiff.data.manifest import Case, Manifest, load_manifest
from medsegdiff.planning.bundle_files import inference, training, write_bundle
from medsegdiff.planning.decisions import Plan, decide, timed
from medsegdiff.planning.fingerprint import Fingerprint, fingerprint_of
from medsegdiff.training.stages import freeze

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
    chosen = _fitted(chosen, fingerprint, manifest, root, place, on, hours, memory)
    write_bundle(root, chosen, fingerprint, manifest, place)
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
    data: str,
    device: torch.device,
    hours: float,
    memory: float | None,
) -> Plan:
    """The plan, made smaller until its steps fit into the memory, with epochs for the hours."""
    while True:
        seconds, used = time_steps(chosen, fingerprint, manifest, device)
        if memory is None or used <= memory:
            break
        smaller = chosen.smaller()
        if smaller == chosen:
            rule = f"a training step takes {used:.1f} GiB even with the smallest patch"
            raise InputError(root, rule, "Allow more --memory")
        logger.info("a step takes %.1f GiB, more than %.1f: planned smaller", used, memory)
        chosen = smaller
    steps = max(1, _items(fingerprint, chosen, manifest) // chosen.batch)
    planned = timed(chosen, seconds, hours, steps)
    reasons = dict(planned.reasons or {})
    reasons["memory_gib"] = "greatest memory of the process while training steps were timed"
    return replace(planned, memory_gib=round(used, 2), reasons=reasons)


def _items(fingerprint: Fingerprint, chosen: Plan, manifest: Manifest) -> int:
    """Number of training items of a fold: cases, or their slices."""
    share = (len(manifest.folds) - 1) / len(manifest.folds) if len(manifest.folds) > 1 else 1.0
    coarse = "RAS".index(chosen.axcodes[-1]) if chosen.axcodes else -1
    slices = fingerprint.shape[coarse] if chosen.slices else 1
    return max(1, round(share * fingerprint.cases * slices))


def time_steps(
    chosen: Plan, fingerprint: Fingerprint, manifest: Manifest, device: torch.device
) -> tuple[tuple[float, float], float]:
    """Seconds of a training step of the encoder and of the denoiser, and the memory in GiB.

    The steps are those of training, on random images.

    Args:
        chosen: Plan whose network is built.
        fingerprint: Fingerprint of the data set.
        manifest: Data set.
        device: Device that the steps run on.
    """
    torch.manual_seed(0)
    _forget_peak(device)
    described = inference(chosen, manifest)
    parts = ("channels", "num_classes", "process", "target", "samples_per_target", "precision")
    settings = {key: described[key] for key in (*parts, "network_def")}
    glue = training(chosen, "timed", "timed")["train"]
    settings["network"] = "@network_def"
    settings["anchor_steps"] = 0
    settings["train"] = {key: glue[key] for key in ("loss", "prepare_batch")}
    parser = ConfigParser(settings)
    with surfacing_input_errors():
        network = parser.get_parsed_content("network").to(device).train()
        loss = parser.get_parsed_content("train#loss")
        prepare = parser.get_parsed_content("train#prepare_batch")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    batch = _random_batch(chosen, fingerprint, manifest)

    def step(prepared: Any) -> float:
        started = time.perf_counter()
        image, targets, _, given = prepared(batch, device)
        optimizer.zero_grad()
        loss(network(image, **given), targets).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    def anchor(*given: Any) -> Any:
        image, targets, further, _ = prepare(*given)
        return image, targets, further, {}

    def median(prepared: Any) -> float:
        step(prepared)
        return sorted(step(prepared) for _ in range(TIMED_STEPS))[TIMED_STEPS // 2]

    alone = median(anchor)
    if chosen.anchor_time:
        freeze(network.encoder)
    return (alone, median(prepare)), _peak_gib(device)


def _random_batch(chosen: Plan, fingerprint: Fingerprint, manifest: Manifest) -> dict[str, Tensor]:
    shape = (chosen.batch, len(manifest.channels), *chosen.patch)
    label = torch.randint(
        len(manifest.labels), (chosen.batch, fingerprint.raters, *chosen.patch), dtype=torch.uint8
    )
    return {"image": torch.randn(shape), "label": label}


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    forget_peak_memory()


def _peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**30
    return peak_memory_mb() / 1024.0
