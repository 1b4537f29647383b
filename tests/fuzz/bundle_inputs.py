"""Bundles with a damaged configuration; what is accepted segments an image on its own grid."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml

from medsegdiff.bundle.bundle import Bundle, load_bundle
from medsegdiff.bundle.trusted_bundles import trusting
from medsegdiff.cases.job import segment
from tests.fuzz.isolation import Attempt
from tests.fuzz.mutations import damaged, damaged_json
from tests.tiny_bundle import TINY

SHAPE = (20, 22, 26)


def attempt_bundle(folder: Path) -> Attempt:
    """A bundle of a tiny network that has learnt nothing, and a tiny image."""
    torch.set_num_threads(1)
    shipped = load_bundle("hippocampus_mr").root / "configs"
    text = (shipped / "inference.yaml").read_text(encoding="utf-8")
    for before, after in TINY["inference.yaml"].items():
        text = text.replace(before, after)
    texts = {
        "metadata.json": (shipped / "metadata.json").read_text(encoding="utf-8"),
        "inference.yaml": text.replace("window: [64, 80, 64]", "window: [24, 24, 32]"),
    }
    for name, content in texts.items():
        _write(folder / "configs" / name, content)
    with trusting():
        network = Bundle(folder).parser("inference").get_parsed_content("network_def")
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    values = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
    image = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 1.2, 1.1, 1.0])), image)

    def attempt(rng: np.random.Generator, place: Path) -> bool:
        name = list(texts)[int(rng.integers(len(texts)))]
        for other, content in texts.items():
            found = _damaged(other, content, rng) if other == name else content
            _write(place / "bundle" / "configs" / other, found)
        (place / "bundle" / "models").symlink_to(folder / "models")
        with trusting():
            bundle = load_bundle(place / "bundle")
            failed = segment(image, bundle, place / "out", device="cpu", members=2, steps=1)
        if failed:
            return False
        mask = nib.load(place / "out" / "scan" / "scan_seg.nii.gz")
        assert mask.shape == SHAPE
        np.testing.assert_array_equal(mask.affine, nib.load(image).affine)
        assert set(np.unique(mask.dataobj).tolist()) <= set(bundle.labels)
        return True

    return attempt


def _damaged(name: str, content: str, rng: np.random.Generator) -> str | bytes:
    if rng.random() < 0.3:
        return damaged(content.encode(), rng)
    if name.endswith(".json"):
        return json.dumps(damaged_json(json.loads(content), rng))
    return yaml.safe_dump(damaged_json(yaml.safe_load(content), rng), sort_keys=False)


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
