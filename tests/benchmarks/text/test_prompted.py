"""The small text-to-image model, slices with captions, and the benchmark's measures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d

from medsegdiff.phantoms.captioned import captioned_image

pytest.importorskip("diffusers", reason="needs the extra 'text'")

from benchmarks.text.captioned_slices import captioned_slices
from benchmarks.text.networks import Critic, named, tokenizer
from benchmarks.text.prompted import iou, main, parsed, prompted
from benchmarks.text.taught_segmenters import segmenter_dice
from benchmarks.text.train_model import captioned, from_slices
from benchmarks.text.train_model import main as train
from medsegdiff.prompting.prompted_data import open_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model after a second of training."""
    folder = tmp_path_factory.mktemp("model")
    train(
        ["--output", str(folder), "--autoencoder-minutes", "0.01", "--minutes", "0.01",
         "--images", "20"]
    )  # fmt: skip
    return folder


def test_known_words_are_one_token_each() -> None:
    tokens = tokenizer()
    ids = tokens("a scan with dark liver, posterior hippocampus").input_ids
    assert len(ids) == 2 + 8  # the comma is one too
    assert len(tokens("gallbladder").input_ids) > 3


def test_names_of_a_caption_are_known_by_their_tokens() -> None:
    tokens = tokenizer()
    found = named(tokens, ["a scan with dark liver, lesion", "posterior hippocampus", ""])
    assert found.sum(dim=1).tolist() == [2, 2, 0]  # attributes are no names
    assert found[0, tokens("liver").input_ids[1]]


def test_every_other_caption_is_a_sentence() -> None:
    assert captioned(["liver", "lesion"], 1) == "a scan with liver, lesion"
    assert captioned(["liver", "lesion"], 2) == "liver, lesion"


def test_training_saves_a_pipeline_that_loads_as_any_other(model: Path) -> None:
    loaded = open_model(str(model), "cpu")
    assert loaded.size == (64, 64)
    one = captioned_image(1, 0)
    found = prompted(loaded, parsed(["--model", str(model)]), [one])
    assert set(found["by_name"]) == {thing.name for thing in one.things}
    assert 0.0 <= found["miou"] <= 1.0


def test_training_goes_on_from_what_is_there(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "further"
    shutil.copytree(model, folder)
    train(["--output", str(folder), "--autoencoder-minutes", "0", "--minutes", "0.01",
           "--images", "20"])  # fmt: skip

    def weights(where: Path, part: str) -> dict[str, torch.Tensor]:
        return load_file(where / part / "diffusion_pytorch_model.safetensors")

    kept, was = weights(folder, "vae"), weights(model, "vae")
    assert all(torch.equal(kept[name], was[name]) for name in was)
    further, was = weights(folder, "unet"), weights(model, "unet")
    changes = [float((further[name] - was[name]).abs().max()) for name in was]
    assert 0.0 < max(changes) < 0.05  # networks begun anew differ by 0.2


def test_a_critic_learns_what_decoded_pictures_lack() -> None:
    torch.manual_seed(0)
    critic = Critic()
    for _ in range(40):
        pictures = torch.rand(8, 3, 32, 32)
        critic.learn(pictures, avg_pool2d(pictures, 3, 1, 1))
    grain = torch.rand(8, 3, 32, 32)
    smooth = avg_pool2d(grain, 3, 1, 1).requires_grad_()
    doubt = critic.doubt(smooth)
    doubt.backward()
    assert float(doubt.detach()) > 1.5 * float(critic.doubt(grain))
    assert smooth.grad is not None and float(smooth.grad.abs().max()) > 0.0
    taught = critic.network.parameters()
    before = [parameter.grad.clone() for parameter in taught if parameter.grad is not None]
    critic.doubt(smooth).backward()
    after = [parameter.grad for parameter in critic.network.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.long
def test_the_benchmark_writes_its_figures(model: Path, tmp_path: Path) -> None:
    words = ["--model", str(model), "--output", str(tmp_path), "--test", "3", "--taught", "4"]
    words += ["--grounding-steps", "2", "--pairs", "2", "--draw-steps", "2", "--few", "1"]
    result = main([*words, "--seconds", "0.5", "--parts", "prompted,grounding,variants"])
    assert {"prompted_miou", "grounding_seen_miou", "grounding_unseen_miou"} <= set(result)
    assert "Grounding module" in (tmp_path / "text_prompted.md").read_text()


def test_slices_of_real_sets_are_named_by_their_labels(shared_data: Path) -> None:
    sets = [
        f"{name}={shared_data / folder}"
        for name, folder in {"hippocampus_mr": "hippocampus", "lidc": "lidc"}.items()
    ] + [f"chase_db1={shared_data / 'chase_db1'}"]
    found = captioned_slices(sets, "held-out", limit=20)
    assert len(found) == 60
    names = {text[-1] for one in found for text in one.texts}
    assert names >= {"anterior hippocampus", "brain", "nodule", "lung", "vessel", "retina"}
    for one in found:
        assert one.picture.shape[1:] == (64, 64) and one.picture.abs().max() <= 1.0
        covered = torch.stack([mask.float() for mask in one.masks]).sum(dim=0)
        assert covered.eq(1.0).float().mean() > 0.95
    images, captions = from_slices(found)
    assert images.shape == (60, 3, 64, 64) and len(captions) == 60


def test_overlap_of_masks() -> None:
    first = torch.tensor([True, True, False, False])
    assert iou(first, torch.tensor([False, True, True, False])) == pytest.approx(1 / 3)
    assert iou(~first & first, ~first & first) == 1.0


@pytest.mark.long
def test_a_segmenter_learns_from_pairs_in_seconds() -> None:
    drawn = [captioned_image(3, number) for number in range(24)]
    pairs = [(torch.from_numpy(one.image)[None], torch.from_numpy(one.label)) for one in drawn]
    dice = segmenter_dice(pairs, drawn[:8], 8.0)
    assert len(dice) == 7 and max(dice.values()) > 0.2
