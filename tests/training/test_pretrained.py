"""A segmenter that starts from a diffusion of images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from medsegdiff.bundle.bundle import Bundle, load_bundle
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.training.encoder_start import encoder_weights
from medsegdiff.training.pretrained import start_from_pretrained


def segmenter() -> DiffusionSegmenter:
    """That of the bundle that ships, without weights."""
    network: DiffusionSegmenter = (
        load_bundle("hippocampus_mr").parser("train").get_parsed_content("network_def")
    )
    return network


def of_images(folder: Path, channels: str = "[16, 32, 64, 192]") -> Bundle:
    """A bundle of images with some weights."""
    shipped = load_bundle("hippocampus_label_efficient").root
    root = Path(
        shutil.copytree(shipped, folder / "images", ignore=shutil.ignore_patterns("*.pt", "runs"))
    )
    path = root / "configs" / "label_efficient.yaml"
    path.write_text(
        path.read_text().replace("channels: [16, 32, 64, 192]", f"channels: {channels}")
    )
    network = Bundle(root).parser("label_efficient").get_parsed_content("network_def")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    (root / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return Bundle(root)


def test_the_encoder_gets_all_but_its_head(tmp_path: Path) -> None:
    bundle, network = of_images(tmp_path), segmenter()
    head = network.encoder.state_dict()["head.weight"].clone()
    before = {name: value.clone() for name, value in network.denoiser.state_dict().items()}
    same = start_from_pretrained(network, str(bundle.root))
    changes = {"device": "$torch.device('cpu')"}
    images = bundle.parser("label_efficient", changes).get_parsed_content("network")
    wanted = encoder_weights(images.denoiser, network.encoder)
    found = same.encoder.state_dict()
    assert len(wanted) == len(found) - 2
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert torch.equal(found["head.weight"], head)
    assert all(torch.equal(before[k], v) for k, v in same.denoiser.state_dict().items())


def test_the_bundle_trains_from_it_as_its_configuration_says(tmp_path: Path) -> None:
    bundle = of_images(tmp_path)
    changes = {"pretrained": str(bundle.root), "device": "$torch.device('cpu')"}
    network = load_bundle("hippocampus_mr").parser("train", changes).get_parsed_content("network")
    wanted = start_from_pretrained(segmenter(), str(bundle.root)).encoder.state_dict()
    found = network.encoder.state_dict()
    assert all(torch.equal(found[k], v) for k, v in wanted.items() if not k.startswith("head"))


def test_without_one_nothing_changes() -> None:
    network = segmenter()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert all(
        torch.equal(before[k], v)
        for k, v in start_from_pretrained(network, None).state_dict().items()
    )


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    bundle = of_images(tmp_path, "[16, 32, 64, 96]")
    with pytest.raises(InputError, match="cannot start the encoder"):
        start_from_pretrained(segmenter(), str(bundle.root))
    with pytest.raises(UsageError, match="neither a folder nor a bundle"):
        start_from_pretrained(segmenter(), "hippocampus_images")
    with pytest.raises(InputError, match="label_efficient"):
        start_from_pretrained(segmenter(), "hippocampus_mr")
