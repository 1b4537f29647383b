"""Memory and time of CT volumes of growing length: is one bounded, and the other linear?

python -m benchmarks.scale.large_volume

The network is tiny and untrained: what is measured is all that lies around it. Each volume is
segmented by ``medsegdiff segment`` in a process of its own, whose ``run.json`` is read.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from medsegdiff.bundle import Bundle, load_bundle, trust
from medsegdiff.core import write_json, write_text

NAME = "large_volume"
AIR, NOISE = -1000.0, 20.0  # HU; of the whole image
LIMIT_MB = 6 * 1024
ELLIPSES = (
    ((0.0, 0.0), (0.80, 0.58), 40.0),  # body
    ((-0.35, -0.05), (0.25, 0.34), -850.0),  # lungs
    ((0.35, -0.05), (0.25, 0.34), -850.0),
    ((0.0, 0.38), (0.09, 0.09), 700.0),  # spine
)
"""Centre, half axes (of half of the field of view), and HU; later ones lie on top."""


def write_phantom(path: Path, side: int, slices: int) -> None:
    """A body in air with lungs, a spine and a sphere every 75 slices: int16, 0.8 x 0.8 x 1 mm."""
    rng = np.random.default_rng(0)
    values = np.empty((side, side, slices), dtype=np.int16, order="F")
    plane = _plane(side)
    x, y = np.meshgrid(*2 * (np.linspace(-1, 1, side),), indexing="ij")
    for z in range(slices):
        height = (z % 75 - 37) / (side / 2)
        sphere = (x + 0.1) ** 2 + (y + 0.3) ** 2 + height**2 < 0.12**2
        values[..., z] = np.where(sphere, 120.0, plane) + rng.normal(0.0, NOISE, plane.shape)
    nib.save(nib.Nifti1Image(values, np.diag([-0.8, -0.8, 1.0, 1.0])), path)


def _plane(side: int) -> NDArray[np.float64]:
    x, y = np.meshgrid(*2 * (np.linspace(-1, 1, side),), indexing="ij")
    plane = np.full(x.shape, AIR)
    for (a, b), (c, d), value in ELLIPSES:
        plane[((x - a) / c) ** 2 + ((y - b) / d) ** 2 < 1.0] = value
    return plane


def write_bundle(root: Path, window: int, spacing: float | None) -> None:
    """A copy of the bundle that ships, with a tiny untrained network and CT's preprocessing."""
    shutil.copytree(load_bundle("hippocampus_mr").root / "configs", root / "configs")
    path = root / "configs" / "inference.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["network_def"]["encoder"]["channels"] = [4, 8, 8, 8]
    config["network_def"]["denoiser"]["channels"] = [4, 8, 8]
    load, orient, space, _ = config["preprocessing"]["transforms"]
    clip = {"a_min": -900.0, "a_max": 300.0, "b_min": 0.0, "b_max": 1.0, "clip": True}
    chain = [load, orient, {"_target_": "ScaleIntensityRanged", "keys": "image", **clip}]
    if spacing:
        chain.insert(2, space | {"pixdim": [spacing] * 3})
    config["preprocessing"]["transforms"] = chain
    config["inferer"] |= {"window": [window] * 3, "mirror_axes": []}
    config["segmenter"]["expected_mm"] = []
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    torch.manual_seed(0)
    trust(root)
    network = Bundle(root).parser("inference").get_parsed_content("network_def")
    (root / "models").mkdir()
    torch.save(network.state_dict(), root / "models" / "model.pt")


def measure(image: Path, bundle: Path, output: Path, options: Sequence[str]) -> dict[str, Any]:
    """What segmenting one image took, by its record."""
    words = ["segment", str(image), "--bundle", str(bundle), "--output", str(output), *options]
    command = [sys.executable, "-c", "from medsegdiff.cli.main import main; main()", *words, "-q"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    case = image.name.removesuffix(".nii.gz")
    record = json.loads((output / case / f"{case}_run.json").read_text(encoding="utf-8"))
    shutil.rmtree(output)
    seconds, windows = record["seconds"], record["windows"]
    row = {name: record[name] for name in ("shape", "windows", "seconds", "peak_memory_mb")}
    done = sum(windows.values())
    around = seconds["total"] - seconds["encode"] - seconds["sample"]
    return row | {
        "seconds_per_window_run": (seconds["encode"] + seconds["sample"]) / max(windows["run"], 1),
        "seconds_per_window_around": around / done,
    }


def page(rows: Sequence[dict[str, Any]], command: str, members: int) -> str:
    """The table, with what it is of."""
    lines = [
        "# Large volumes\n",
        f"`medsegdiff segment` on a synthetic CT (body in noisy air), {members} members, one step, "
        "a tiny untrained network, one thread, with other work on the machine. The peak is that "
        f"of the whole process; it may be {LIMIT_MB} MiB.\n",
        "| voxels | windows run | skipped | s / window run: network | s / window: all else | "
        "s in all | peak MiB |",
        "| --- |" + " ---: |" * 6,
    ]
    for row in rows:
        cells = (
            " × ".join(map(str, row["shape"])),
            row["windows"]["run"],
            row["windows"]["skipped"],
            f"{row['seconds_per_window_run']:.2f}",
            f"{row['seconds_per_window_around']:.2f}",
            f"{row['seconds']['total']:.0f}",
            f"{row['peak_memory_mb']:.0f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "\n```console", command, "```\n"])


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The command; writes the table, and returns its rows."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.scale.{NAME}")
    add = parser.add_argument
    add("--slices", default="150,300,600", help="a row for each")
    add("--side", type=int, default=512, help="voxels along the other two axes")
    add("--members", type=int, default=8)
    add("--window", type=int, default=96)
    add("--spacing", type=float, help="millimetres that the network works at; as it is if left out")
    add("--output", type=Path, default=Path("benchmarks/results"), help="folder of the table")
    words = sys.argv[1:] if words is None else words
    arguments = parser.parse_args(words)
    command = f"{parser.prog} {shlex.join(words)}".strip()
    name = NAME if arguments.spacing is None else f"{NAME}_resampled"
    rows: list[dict[str, Any]] = []
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.output) as folder:
        root = Path(folder)
        write_bundle(root / "tiny_ct", arguments.window, arguments.spacing)
        for slices in map(int, arguments.slices.split(",")):
            image = root / f"ct_{slices}.nii.gz"
            write_phantom(image, arguments.side, slices)
            options = ["--members", str(arguments.members), "--device", "cpu", "--save-members"]
            rows.append(measure(image, root / "tiny_ct", root / "out", options))
            image.unlink()
            write_json(arguments.output / f"{name}.json", {"rows": rows, "command": command})
            write_text(arguments.output / f"{name}.md", page(rows, command, arguments.members))
    return rows


if __name__ == "__main__":
    main()
