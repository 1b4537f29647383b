"""Export a bundle's ensemble: its networks, and the numbers that a program samples with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import CenterSpatialCrop, SpatialPad
from torch import Tensor

from medsegdiff.bundle.bundle import Bundle, load_bundle
from medsegdiff.calibration.application import read_bundle_calibration
from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import InputError, UsageError, surfacing_input_errors
from medsegdiff.data.transforms import load
from medsegdiff.exporting.exported_files import (
    ENDINGS,
    TOLERANCE,
    ExportFormat,
    check_difference,
    difference,
    read_part,
    write_part,
)
from medsegdiff.exporting.exported_parts import Parts, split
from medsegdiff.exporting.sampler_steps import sampler_steps, start_factor
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.models.fold_ensemble import networks_of
from medsegdiff.segmentation.sliding_window import EnsembleInferer

DESCRIPTION = "ensemble.json"
"""Name of the file with the numbers; it is written last."""


def export(
    bundle: str | Path | Bundle,
    output: str | Path,
    *,
    form: ExportFormat = "onnx",
    size: Sequence[int] | None = None,
    image: str | Path | None = None,
) -> dict[str, Any]:
    """Export the networks of a bundle that segments, for images of one size.

    Encoder and denoiser become a file each, of each network. A file is compared with the network on
    random input, and on the image if one is given, before it is kept.

    Args:
        bundle: Name, path or bundle, with weights.
        output: Folder of the files.
        form: Format of the files.
        size: Spatial size of the images in the network's space, in voxels; None: the window.
        image: Path of an image to compare on, cropped and padded to the size; None: none.

    Returns:
        Content of ``ensemble.json``.

    Raises:
        InputError: the bundle cannot be exported, or a file does not compute what its network does.
        UsageError: the size has another number of axes than the network.
    """
    bundle, folder = load_bundle(bundle), Path(output)
    if (folder / DESCRIPTION).exists():
        raise InputError(folder, "already holds an export", "Choose another folder, or remove it")
    parser = bundle.parser("inference", {"device": "$torch.device('cpu')", "compilation": "off"})
    with surfacing_input_errors():
        network, inferer = (parser.get_parsed_content(key) for key in ("network", "inferer"))
        channels = int(parser.get_parsed_content("channels"))
    if not isinstance(inferer, EnsembleInferer):
        raise InputError(bundle.root, "does not draw ensembles", "Choose a bundle that segments")
    wanted = tuple(size or inferer.window)
    if len(wanted) != len(inferer.window) or min(wanted) < 1:
        rule = f"must be {len(inferer.window)} whole numbers above 0, not {list(wanted)}"
        raise UsageError("--size", rule, f"Give for instance {_example(inferer.window)}")
    inputs = {"random": torch.randn(1, channels, *wanted, generator=_generator())}
    if image is not None:
        inputs["image"] = _prepared(parser, Path(image), wanted)
    folder.mkdir(parents=True, exist_ok=True)
    files, checked = [], []
    singles = networks_of(network)
    for number, single in enumerate(singles):
        ending = f"_{number}" if len(singles) > 1 else ""
        names = {part: f"{part}{ending}{ENDINGS[form]}" for part in ("encoder", "denoiser")}
        files.append(names)
        checked.append(_written(single, channels, wanted, names, folder, form, inputs))
    described = _description(bundle, parser, inferer, singles[0], wanted)
    content = {"networks": files, **described, "tolerance": TOLERANCE, "checked": checked}
    write_json(folder / DESCRIPTION, content)
    return content


def _written(
    network: DiffusionSegmenter,
    channels: int,
    size: Sequence[int],
    names: Mapping[str, str],
    folder: Path,
    form: ExportFormat,
    inputs: Mapping[str, Tensor],
) -> dict[str, dict[str, float]]:
    """Write both parts of a network; their differences from it, by part and input."""
    network.precision = "float32"
    _refuse_other_denoisers(network)
    parts = split(network, channels, size)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as aside:
        for part, name in names.items():
            path, module = Path(aside) / name, getattr(parts, part)
            arguments = _arguments(parts, part, inputs["random"])
            write_part(module, arguments, path, form, members=part == "denoiser")
            run = read_part(path)
            found[part] = {
                key: difference(module, run, _arguments(parts, part, image, members=3))
                for key, image in inputs.items()
            }
            for key, value in found[part].items():
                check_difference(f"{name}, on {key} input", value)
        for name in names.values():
            (Path(aside) / name).replace(folder / name)
    return found


@torch.no_grad()
def _arguments(parts: Parts, part: str, image: Tensor, members: int = 2) -> tuple[Tensor, ...]:
    if part == "encoder":
        return (image,)
    network = parts.denoiser.network
    shape, generator = (members, network.num_classes, *parts.state), _generator()
    x_t, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    t = torch.tensor([network.process.n_timesteps - 1])
    return (x_t, t, noise, *parts.encoder(image))


def _prepared(parser: ConfigParser, file: Path, size: Sequence[int]) -> Tensor:
    """The image (1, C, *size) as the network gets it; of a volume for 2D the middle slice."""
    chain = parser.get_parsed_content("preprocessing")
    image = load(chain, {"case": "image", "image": [str(file)]})["image"].as_tensor()
    if image.ndim - 1 > len(size):
        image = image[..., image.shape[-1] // 2]
    cut = CenterSpatialCrop(size)(SpatialPad(size, mode="edge")(image))
    return torch.as_tensor(cut).as_subclass(Tensor)[None].contiguous()


def _description(
    bundle: Bundle,
    parser: ConfigParser,
    inferer: EnsembleInferer,
    network: DiffusionSegmenter,
    size: Sequence[int],
) -> dict[str, Any]:
    """All numbers that a program needs beside the networks."""
    settings, calibration = inferer.sampling, read_bundle_calibration(bundle)
    return {
        "bundle": bundle.name,
        "bundle_version": str(bundle.metadata.get("version", "")),
        "bundle_hash": bundle.fingerprint(),
        "classes": {str(value): name for value, name in bundle.labels.items()},
        "size": list(size),
        "state": network.state_size(size),
        "preprocessing": _resolved(parser["preprocessing"]["transforms"], parser),
        "mirrors": [list(axes) for axes in inferer.mirrors],
        "members": settings.members,
        "oversampling": settings.oversampling,
        "seed": settings.seed,
        "member_noise": settings.member_noise,
        "noise_scale": settings.noise_scale,
        "anchor_share": settings.anchor_share,
        "start": start_factor(network.process),
        "steps": [asdict(step) for step in sampler_steps(settings, network.process)],
        "calibration": None if calibration is None else asdict(calibration.scaling),
    }


def _resolved(value: Any, parser: ConfigParser) -> Any:
    """A configuration with the values of the keys that it refers to."""
    if isinstance(value, Mapping):
        return {key: _resolved(one, parser) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_resolved(one, parser) for one in value]
    if isinstance(value, str) and value.startswith("@"):
        return _resolved(parser[value[1:]], parser)
    return value


def _refuse_other_denoisers(network: DiffusionSegmenter) -> None:
    """Refuse a denoiser that takes other inputs than a state and noise."""
    if network.self_conditioning > 0.0 or network.samples_per_target == 1:
        rule = (
            f"has self_conditioning {network.self_conditioning:g} and samples_per_target "
            f"{network.samples_per_target}, but a denoiser of state and noise alone is exported"
        )
        remedy = "Export a bundle with self_conditioning 0 and samples_per_target above 1"
        raise InputError("export", f"the network {rule}", remedy)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _example(window: Sequence[int]) -> str:
    return ",".join(map(str, window))
