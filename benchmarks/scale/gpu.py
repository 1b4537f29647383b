"""What a GPU makes of an ensemble: latency, throughput, memory, share of its peak, equal masks.

python -m benchmarks.scale.gpu

One command for whoever has a GPU: each shipped segmenter, in float32 and bfloat16, plain, compiled,
and with the sampling loop's parts as CUDA graphs (``reduce-overhead``). The image is random, of the
size of the window: the time does not depend on its content. The peak is that of a product of
matrices on this device in the same precision. The masks are compared with those of the processor in
float32, of the same noise.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.arithmetic import operations
from medsegdiff.bundle import load_bundle
from medsegdiff.core import write_json, write_text

BUNDLES = ("hippocampus_mr", "lung_nodule_ct")
PRECISIONS = ("float32", "bfloat16")
COMPILATIONS = ("off", "default", "reduce-overhead")
AT_ONCE = 8
"""Images of the throughput, one after the other, which the device may overlap with the host."""


def main(words: Sequence[str] | None = None) -> None:
    """Measure all forms of all bundles, and write a table with the device's name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bundles", default=",".join(BUNDLES), help="with commas between")
    parser.add_argument("--compilations", default=",".join(COMPILATIONS))
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(words)
    device = torch.device(options.device)
    rows = []
    for name in options.bundles.split(","):
        plain = _masks(name, torch.device("cpu"), "float32", "off", options.members)
        for form in itertools.product(PRECISIONS, options.compilations.split(",")):
            rows.append(_row(name, device, *form, options, plain))
            print(rows[-1], flush=True)
    content = {
        "device": device_name(device),
        "torch": torch.__version__,
        "members": options.members,
        "peak_tflops": {each: round(peak(device, each) / 1e12, 3) for each in PRECISIONS},
        "command": f"python -m benchmarks.scale.gpu {' '.join(words or sys.argv[1:])}".strip(),
        "rows": rows,
    }
    write_json(options.output / "gpu.json", content)
    write_text(options.output / "gpu.md", page(content))


def device_name(device: torch.device) -> str:
    """Name of the card, or of the processor's kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def _row(
    name: str,
    device: torch.device,
    precision: str,
    compilation: str,
    options: argparse.Namespace,
    plain: Tensor,
) -> dict[str, Any]:
    """One form of one bundle."""
    work, image, network = _work(name, device, precision, compilation, options.members)
    with operations() as counter:
        work(image)  # which sets up kernels; what is compiled is not counted within
    for _ in range(2):
        labels = work(image).labels
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    latency = statistics.median(_seconds(lambda: work(image), device, options.rounds))
    several = statistics.median(
        _seconds(lambda: [work(image) for _ in range(AT_ONCE)], device, max(1, options.rounds // 5))
    )
    row: dict[str, Any] = {
        "bundle": name,
        "precision": precision,
        "compilation": compilation,
        "latency_ms": round(1e3 * latency, 3),
        "images_per_second": round(AT_ONCE / several, 2),
        "peak_memory_mib": _memory(device),
        "dice_with_cpu": round(agreement(labels, plain, network.num_classes), 5),
    }
    if compilation == "off":
        flops = counter.get_total_flops()
        row |= {
            "gflop": round(flops / 1e9, 3),
            "share_of_peak": round(flops / latency / peak(device, precision), 4),
        }
    return row


def _work(
    name: str, device: torch.device, precision: str, compilation: str, members: int
) -> tuple[Any, Tensor, Any]:
    """The function that draws the ensemble of an image, an image, and the network."""
    changes = {
        "device": f"$torch.device({str(device)!r})",
        "precision": precision,
        "compilation": compilation,
        "members": members,
    }
    bundle = load_bundle(name)
    parser = bundle.parser("inference", changes)
    network = parser.get_parsed_content("network").eval()
    inferer = parser.get_parsed_content("inferer")
    generator = torch.Generator().manual_seed(0)
    channels = parser.get_parsed_content("channels")
    image = torch.randn((channels, *inferer.window), generator=generator).to(device)
    return lambda image: inferer.ensemble(image, network, "timed"), image, network


def _masks(
    name: str, device: torch.device, precision: str, compilation: str, members: int
) -> Tensor:
    work, image, _ = _work(name, device, precision, compilation, members)
    labels: Tensor = work(image).labels
    return labels


def _seconds(work: Any, device: torch.device, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - started)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)


def peak(device: torch.device, precision: str, side: int | None = None) -> float:
    """Floating point operations a second of a product of square matrices, in this precision.

    Args:
        device: Device that is measured.
        precision: Name of the precision, as a bundle spells it.
        side: Rows of the matrices; None: 8192 on a GPU, else 1024.
    """
    side = side or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(side, side, device=device).to(getattr(torch, precision)) for _ in "ab")
    a @ b
    return 2.0 * side**3 / min(_seconds(lambda: a @ b, device, 5))


def agreement(first: Tensor, second: Tensor, classes: int) -> float:
    """Dice of two label maps (N, *spatial) over all foreground classes and members together."""
    both = sum(((first == k) & (second == k)).sum().item() for k in range(1, classes))
    total = sum(((one > 0).sum().item()) for one in (first, second))
    return 2.0 * both / total if total else 1.0


def page(content: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        f"# On a GPU: {content['device']}\n",
        f"{content['members']} members of one window, torch {content['torch']}.\n",
        "| bundle | precision | compilation | ms | images a second | MiB | share of peak | "
        "Dice with the processor's masks |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in content["rows"]:
        share = f"{row['share_of_peak']:.1%}" if "share_of_peak" in row else ""
        lines.append(
            f"| {row['bundle']} | {row['precision']} | {row['compilation']} | {row['latency_ms']} "
            f"| {row['images_per_second']} | {row['peak_memory_mib'] or ''} | {share} "
            f"| {row['dice_with_cpu']} |"
        )
    return "\n".join([*lines, "\n```console", content["command"], "```\n"])


if __name__ == "__main__":
    main()
