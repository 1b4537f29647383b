"""What ``benchmarks.text.prompted`` measured, as a page and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medsegdiff.prompting import DrawnPair
from medsegdiff.viz import save_png

NAME = "text_prompted"
"""Of the files."""
SLICES = "Measured with the weights of version 0.3.0; these words are no longer asked for together."


def shown(pairs: Sequence[DrawnPair], file: Path) -> None:
    """Drawn pictures with the outlines of their labels."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    axes = figure.subplots(2, 6).flat
    for place, pair in zip(axes, pairs, strict=False):
        place.imshow(pair.picture[0], cmap="gray", vmin=-1, vmax=1)
        place.contour(pair.label > 0, [0.5], colors="tab:orange", linewidths=1)
        place.set_title("\n".join(pair.names), fontsize=7)
    for place in figure.axes:
        place.axis("off")
    save_png(figure, file)


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    parts = [found for found in result.values() if isinstance(found, dict)]
    commands = dict.fromkeys(found["command"] for found in parts)
    lines = ["# Masks from words", *(f"`{command}`\n" for command in commands)]
    lines += ["Generated images of named organs, not seen in training.", ""]
    if found := result.get("prompted"):
        lines += ["## Words, without any mask", "| | mIoU |", "| --- | --- |"]
        lines += [f"| all names, mean | {found['miou']:.3f} |"]
        lines += [f"| {name} | {value:.3f} |" for name, value in found["by_name"].items()]
        rate = found["absent_false_positive_rate"]
        area, lost = 100 * found["absent_mean_area"], 100 * found["present_called_absent"]
        lines += ["", f"A word has to draw an attention of {found['attended']:g} to be there. An "
                  f"absent name is given a mask in {100 * rate:.0f} % of the images (mean area "
                  f"{area:.2f} %), and {lost:.0f} % of the names that are there are taken to be "
                  "absent.", ""]  # fmt: skip
        lines += [f"The variance over draws tells wrong pixels with an AUROC of "
                  f"{found['variance_auroc']:.3f}. The probability that any word is at a pixel has "
                  f"an ECE of {found['ece']:.3f}.", ""]  # fmt: skip
    if found := result.get("grounding"):
        images, steps = found["taught_images"], found["steps"]
        lines += [f"## Grounding module, taught by {images} images for {steps} steps", "| | mIoU |"]
        lines += ["| --- | --- |", f"| seen | {found['seen_miou']:.3f} |"]
        lines += [f"| unseen | {found['unseen_miou']:.3f} |", ""]
        rate = found["absent_false_positive_rate"]
        lines += [f"A name that is absent is given a mask in {100 * rate:.0f} % of the images.", ""]
    if found := result.get("diffumask"):
        count = found["pairs"]
        lines += ["## A segmenter taught by drawn images alone", "| taught by | Dice on real |"]
        lines += ["| --- | --- |", f"| {count} drawn images | {found['dice_synthetic']:.3f} |"]
        lines += [f"| {count} real images | {found['dice_real']:.3f} |"]
        lines += [f"| ratio | {found['ratio']:.3f} |", ""]
        lines += [f"{found['drawn']} were drawn, {count} kept. ![pairs]({NAME}_pairs.png)", ""]
    if found := result.get("variants"):
        few, more, drawn = found["images"], found["kept"], found["drawn"]
        lines += ["## Variants of few labelled images", "| taught by | Dice |", "| --- | --- |"]
        lines += [f"| {few} real images | {found['dice_without']:.3f} |"]
        lines += [f"| and {more} variants of them, of {drawn} | {found['dice_with']:.3f} |", ""]
    if found := result.get("slices"):
        lines += ["## Held-out slices of real sets, without any mask", SLICES, ""]
        lines += ["| | slices | mIoU |", "| --- | --- | --- |"]
        for name, value in found["by_name"].items():
            lines.append(f"| {name} | {found['slices'][name]} | {value:.3f} |")
    lines += _real(result)
    return "\n".join(lines) + "\n"


def _real(result: dict[str, Any]) -> list[str]:
    """What was found in real scans."""
    prompted, grounding = result.get("real_prompted"), result.get("real_grounding")
    lines: list[str] = []
    if prompted:
        rate = prompted["absent_false_positive_rate"]
        lines += ["", "## Real scans, without any mask",
                  "IoU of all slices of a scan, mean over scans. Heads and hearts together: "
                  f"{prompted['miou']:.3f}; an absent word is given a mask in {100 * rate:.1f} % "
                  "of the slices.", ""]  # fmt: skip
        lines += _by_name({kind: found for kind, found in prompted.items() if _named(found)})
    if grounding:
        names = ", ".join(grounding["unseen"])
        lines += ["", f"## Real scans, grounding module, taught by {grounding['taught_images']} "
                  f"pictures for {grounding['steps']} steps", f"Seen {grounding['seen_miou']:.3f}, "
                  f"unseen ({names}) {grounding['unseen_miou']:.3f}.", ""]  # fmt: skip
        lines += _by_name({kind: found for kind, found in grounding.items() if _named(found)})
    return lines


def _named(found: Any) -> bool:
    return isinstance(found, dict) and bool(found.get("by_name"))


def _by_name(parts: dict[str, Any]) -> list[str]:
    lines = ["| | | IoU | absent, but given a mask | seconds a slice |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for kind, found in parts.items():
        for name, value in found["by_name"].items():
            absent = found["absent_by_name"].get(name)
            share = "" if absent is None else f"{100 * absent:.1f} %"
            lines.append(
                f"| {kind} | {name} | {value:.3f} | {share} | {found['seconds_a_slice']:.2f} |"
            )
    return lines
