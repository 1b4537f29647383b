"""The benchmark's parts on real scans: words without masks, the grounding module, cost."""

from __future__ import annotations

import argparse
import dataclasses
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.text.described import CUTS, HEART_NAMES, cut_out, of_head, read_heads, slices_of_set
from benchmarks.text.real_scans import Found, figures, look
from benchmarks.text.real_volumes import (
    HEAD_LABELS,
    RealScan,
    head_scans,
    heart_scans,
    pictures_of,
)
from medsegdiff.prompting import (
    Example,
    GroundedSegmenter,
    PromptSegmenter,
    TeachingOptions,
    TextToImage,
    suited_options,
    teach,
)

UNSEEN = ("putamen", "thalamus", "right ventricle")
"""Names whose masks the grounding module is not taught."""
WINDOWS: dict[str, tuple[int, ...]] = {
    "head": (96,),
    "heart": (120,),
    "retina": (120,),
    "chest": (),
}
"""Sides of windows in pixels: first guesses, which were not compared with others."""
FOREIGN = {"head": ("myocardium",), "heart": ("hippocampus", "thalamus")}
"""Words that no scan of a kind has."""


def scans_of(options: argparse.Namespace, kind: str, sides: bool = False) -> Iterator[RealScan]:
    """Real scans of a kind that are reported."""
    data = {name: folder for name, _, folder in (one.partition("=") for one in options.slices)}
    if kind == "head" and options.whole_heads:
        yield from head_scans(options.whole_heads, options.every, sides)
    elif kind == "heart" and "acdc" in data:
        yield from heart_scans(f"acdc={data['acdc']}", "held-out", options.scans)
    elif kind == "retina" and "chase_db1" in data:
        yield from pictures_of(f"chase_db1={data['chase_db1']}", "held-out", ("vessel",), 4)
    elif kind == "chest" and "lidc" in data:
        yield from pictures_of(f"lidc={data['lidc']}", "held-out", ("nodule",), 40)


def real_prompted(model: TextToImage, options: argparse.Namespace, _: Any) -> dict[str, Any]:
    """Words without any mask in heads, hearts, retinas and nodules, and the sides of heads."""
    parts: dict[str, dict[str, Any]] = {}
    named: dict[str, float] = {}
    absent, pairs = 0.0, 0
    for kind in WINDOWS:
        segmenter = _prompting(model, options, kind)
        found = look(segmenter, scans_of(options, kind), FOREIGN.get(kind, ()))
        parts[kind] = figures(found)
        if kind in FOREIGN:
            named |= parts[kind]["by_name"]
            count = parts[kind]["absent_pairs"]
            absent += count * parts[kind]["absent_false_positive_rate"]
            pairs += count
    if options.sides:
        segmenter, sided = _prompting(model, options, "head"), Found()
        for scan in scans_of(options, "head", sides=True):
            names = list(scan.masks)
            for some in (names[:4], names[4:]):  # a caption holds no more
                masks = {name: scan.masks[name] for name in some}
                look(segmenter, [dataclasses.replace(scan, masks=masks)], found=sided)
        parts["sides"] = figures(sided)
    return {
        "miou": sum(named.values()) / max(1, len(named)),
        "absent_false_positive_rate": absent / max(1, pairs),
        "windows": {kind: list(sides) for kind, sides in WINDOWS.items()},
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
        **parts,
    }


def _prompting(model: TextToImage, options: argparse.Namespace, kind: str) -> PromptSegmenter:
    suited = suited_options(options.model, attended=options.attended)
    if suited.absolute:
        suited = dataclasses.replace(suited, windows=WINDOWS[kind])
    return PromptSegmenter(model, dataclasses.replace(suited, draws=options.draws))


def real_grounding(model: TextToImage, options: argparse.Namespace, _: Any) -> dict[str, Any]:
    """The grounding module, taught on drawn heads and on real hearts, on real heads and hearts."""
    suited = suited_options(options.model)
    teaching = TeachingOptions(
        steps=options.real_steps,
        template=suited.template,
        layers=suited.layers,
        absolute=suited.absolute,
        level=suited.levels[0],
        learning_rate=3e-3,
        draws=options.draws,
    )
    taught = list(_taught(options))
    head = teach(model, taught, teaching)
    found = {}
    for kind in FOREIGN:
        windowed = dataclasses.replace(teaching, windows=WINDOWS[kind])
        segmenter = GroundedSegmenter(model, head, windowed)
        found[kind] = figures(look(segmenter, scans_of(options, kind), FOREIGN[kind]))
    by_name = {name: value for one in found.values() for name, value in one["by_name"].items()}
    seen = [value for name, value in by_name.items() if name not in UNSEEN]
    unseen = [value for name, value in by_name.items() if name in UNSEEN]
    return {
        "seen_miou": sum(seen) / max(1, len(seen)),
        "unseen_miou": sum(unseen) / max(1, len(unseen)),
        "unseen": list(UNSEEN),
        "taught_images": len(taught),
        "steps": options.real_steps,
        **found,
    }


def _taught(options: argparse.Namespace) -> Iterator[Example]:
    """Pictures of drawn heads and of hearts of the training part, with masks of names seen."""
    heads = read_heads(options.label_maps) if options.label_maps else []
    hearts: Sequence[Example] = []
    for data in options.slices:
        if data.startswith("acdc"):
            hearts = slices_of_set(data, "training")
    for number in range(options.real_taught):
        if heads:
            yield _example(of_head(heads, 7, number), tuple(HEAD_LABELS))
        if hearts and number % 2:
            yield _example(cut_out(hearts, CUTS["acdc"], 7, number), HEART_NAMES)


def _example(one: Any, names: Sequence[str]) -> Example:
    kept = [name for name in names if name in one.masks and name not in UNSEEN]
    return Example(one.picture, tuple((n,) for n in kept), tuple(one.masks[n] for n in kept))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the parts on real scans."""
    parser.add_argument("--whole-heads", type=Path, help="folder of heads with labels, to measure")
    parser.add_argument("--label-maps", type=Path, help="folder of label maps, to teach grounding")
    parser.add_argument("--every", type=int, default=4, help="step between coronal slices")
    parser.add_argument("--scans", type=int, default=14, help="hearts, one of each patient")
    parser.add_argument("--draws", type=int, default=2, help="of noise, on real scans")
    parser.add_argument("--sides", action="store_true", help="names of heads with sides as well")
    parser.add_argument("--real-taught", type=int, default=400, help="drawn heads of grounding")
    parser.add_argument("--real-steps", type=int, default=800, help="of grounding on real scans")
