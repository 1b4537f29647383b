"""The small text-to-image model, slices with captions, and the benchmark's measures."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("diffusers", reason="needs the extra 'text'")

from benchmarks.text.captions import LENGTH, Captions
from benchmarks.text.described import CUTS, Described, cut_out, generated, square
from benchmarks.text.networks import (
    attending,
    by_picture,
    denoiser,
    misplaced,
    on_the_way_down,
    tokenizer,
)
from benchmarks.text.prompted import iou, main, parsed, prompted
from benchmarks.text.real_scans import figures, look
from benchmarks.text.real_volumes import RealScan
from benchmarks.text.taught_segmenters import segmenter_dice
from benchmarks.text.train_model import main as train
from benchmarks.text.train_model import mosaic, together
from medsegdiff.phantoms.captioned import captioned_image
from medsegdiff.prompting.grounded import Example
from medsegdiff.prompting.prompted_data import open_model
from medsegdiff.prompting.word_segmenter import Prompted


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
    ids = tokens("a scan with dark liver, left lateral ventricle").input_ids
    assert len(ids) == 2 + 9  # the comma is one too
    assert len(tokens("gallbladder").input_ids) > 3


def drawn_head() -> Described:
    """A head with both hippocampi in view, and of the left putamen too little."""
    shares = {"hippocampus": 0.04, "left hippocampus": 0.02, "right hippocampus": 0.02}
    unclear = frozenset({"putamen", "left putamen"})
    return Described(torch.zeros(1, 64, 64), "head", shares, unclear, "t1 axial head", {}, {})


def test_what_is_asked_for_is_there_or_absent_and_never_unclear() -> None:
    tokens, rng = tokenizer(), np.random.default_rng(0)
    captions, one = Captions(tokens), drawn_head()
    shares: dict[str, set[float | None]] = {}
    for _ in range(60):
        text = captions.asked([one], rng)
        assert len(text.ids) < LENGTH
        for places, (share,) in zip(text.places, text.shares, strict=True):
            name = tokens.decode([text.ids[place] for place in places]).strip()
            shares.setdefault(name, set()).add(share)
    assert shares["hippocampus"] == {0.04} and shares["left hippocampus"] == {0.02}
    assert shares["thalamus"] == {0.0} and "left putamen" not in shares and "putamen" not in shares
    assert "liver" in shares  # of another kind of picture


def test_names_of_a_mosaic_are_known_of_each_of_its_pictures() -> None:
    tokens, rng = tokenizer(), np.random.default_rng(0)
    unclear = frozenset({"left ventricle"})
    picture, shares_of_heart = torch.zeros(1, 64, 64), {"myocardium": 0.1}
    head = drawn_head()
    heart = Described(picture, "heart", shares_of_heart, unclear, "heart", {}, {})
    seen: dict[str, set[tuple[float | None, ...]]] = {}
    for _ in range(40):
        text = Captions(tokens).asked([head, heart], rng)
        for places, shares in zip(text.places, text.shares, strict=True):
            name = tokens.decode([text.ids[place] for place in places]).strip()
            seen.setdefault(name, set()).add(shares)
    assert seen["hippocampus"] == {(0.04, 0.0)} and seen["myocardium"] == {(0.0, 0.1)}
    assert all(shares == {(0.0, None)} for name, shares in seen.items() if name == "left ventricle")
    text = Captions(tokens).asked([head, heart], rng)
    given = together([text], 1)
    assert given["shares"].shape == given["known"].shape == (1, 2, len(text.places))


def test_mosaics_and_their_maps_are_of_the_same_pictures() -> None:
    halves = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    latents = mosaic(halves)
    assert latents.shape == (2, 3, 8, 8)
    maps = latents[:, :1].flatten(2).transpose(1, 2)
    parts = by_picture(maps, 4)
    assert parts.shape == (8, 16, 1)
    assert parts[..., 0].mean(dim=1).tolist() == list(range(8))
    assert (parts.std(dim=1) == 0.0).all()


def test_captions_are_read_as_the_model_reads_them() -> None:
    tokens, rng = tokenizer(), np.random.default_rng(1)
    captions = Captions(tokens)
    for number in range(20):
        text = captions.told(generated(0, number), rng)
        assert tokens(tokens.decode(text.ids[1:]).strip()).input_ids == [*text.ids, 1]
        assert all(share and share > 0.0 for (share,) in text.shares)


def test_attention_to_names_in_view_alone_is_best() -> None:
    shares, known = torch.tensor([[[0.25, 0.0]]]), torch.ones(1, 1, 2)
    members = torch.tensor([[[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]])

    def loss(filled: int, stray: float) -> float:
        attention = torch.zeros(1, 64, 4)
        attention[0, :filled, 1:3] = 0.5
        attention[0, :, 3] = stray * (attention[0, :, 1] == 0)
        attention[..., 0] = 1.0 - attention[..., 1:].sum(dim=-1)
        return float(misplaced(attention, members, shares, known, torch.ones(1), progress=1.0))

    best = loss(16, 0.0)
    assert best < 0.05
    assert all(loss(*given) > best + 0.1 for given in ((4, 0.0), (16, 0.6), (0, 0.0)))


def test_half_a_u_net_attends_as_the_whole_one() -> None:
    torch.manual_seed(0)
    unet = denoiser().eval()
    layers = attending(unet)
    x_t, t, told = torch.randn(2, 4, 32, 32), torch.tensor([10, 200]), torch.randn(2, LENGTH, 64)
    with torch.no_grad():
        on_the_way_down(unet, x_t, t, told)
        half = [layer.probabilities for layer in layers]
        unet(x_t, t, encoder_hidden_states=told)
    assert [one.shape[1] for one in half] == [1024, 256]
    for one, layer in zip(half, layers, strict=True):
        torch.testing.assert_close(one, layer.probabilities)


def test_places_far_apart_do_not_answer_for_each_other() -> None:
    """But for the statistics of normalisation, attention sees its surroundings alone."""
    torch.manual_seed(0)
    unet = denoiser().eval()
    layers = attending(unet)
    for module in unet.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = torch.nn.Identity().forward  # type: ignore[method-assign]
    x_t, t, told = torch.randn(1, 4, 32, 32), torch.tensor([10]), torch.randn(1, LENGTH, 64)
    seen = []
    for value in (0.0, 1.0):
        x_t[..., :4, :4] = value
        with torch.no_grad():
            on_the_way_down(unet, x_t, t, told)
        seen.append([layer.probabilities for layer in layers])
    for before, after in zip(*seen, strict=True):
        assert not torch.equal(before[:, 0], after[:, 0])
        torch.testing.assert_close(before[:, -1], after[:, -1])


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
    spent = torch.load(folder / "state" / "diffusion.pt", weights_only=True)["minutes"]
    train(["--output", str(folder), "--autoencoder-minutes", "0.01", "--minutes", f"{spent + 0.01}",
           "--images", "20"])  # fmt: skip

    def weights(where: Path, part: str) -> dict[str, torch.Tensor]:
        return load_file(where / part / "diffusion_pytorch_model.safetensors")

    kept, was = weights(folder, "vae"), weights(model, "vae")
    assert all(torch.equal(kept[name], was[name]) for name in was)
    further, was = weights(folder, "unet"), weights(model, "unet")
    changes = [float((further[name] - was[name]).abs().max()) for name in was]
    assert 0.0 < max(changes) < 0.1  # networks begun anew differ by more


def test_squares_are_cut_with_their_masks() -> None:
    picture, mask = torch.zeros(1, 80, 100), torch.zeros(80, 100, dtype=torch.bool)
    mask[20:40, 50:90] = True
    picture[0, mask] = 1.0
    one = Example(picture, (("vessel",),), (mask,))
    turned = square(one, (30, 70), 40.0)
    assert torch.equal(turned.masks[0][16:48], torch.ones(32, 64, dtype=torch.bool))
    assert not turned.masks[0][:15].any()
    shares = [cut_out([one], CUTS["chase_db1"], 0, number).shares for number in range(12)]
    assert any(shares) and all(0.0 < share["vessel"] <= 1.0 for share in shares if share)


def test_words_are_counted_by_scan_and_absent_ones_by_slice() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4] = True  # in the first slice alone
    scan = RealScan("one", torch.zeros(2, 1, 8, 8), {"liver": masks})

    def halves(picture: torch.Tensor, names: Sequence[str], number: int) -> Prompted:
        found = torch.zeros(1, 3, 8, 8)
        found[:, 1, :2], found[:, 0, 2:] = 1.0, 1.0
        return Prompted(found, torch.tensor([True, False]))

    result = figures(look(halves, [scan], ["kidney"]))
    assert result["by_name"]["liver"] == pytest.approx(16 / (32 + 16))
    assert result["absent_by_name"] == {"liver": 1.0, "kidney": 0.0}
    assert result["absent_false_positive_rate"] == pytest.approx(1 / 3)


@pytest.mark.long
def test_the_benchmark_writes_its_figures(model: Path, tmp_path: Path) -> None:
    words = ["--model", str(model), "--output", str(tmp_path), "--test", "3", "--taught", "4"]
    words += ["--grounding-steps", "2", "--pairs", "2", "--draw-steps", "2", "--few", "1"]
    result = main([*words, "--seconds", "0.5", "--parts", "prompted,grounding,variants"])
    assert {"prompted_miou", "grounding_seen_miou", "grounding_unseen_miou"} <= set(result)
    assert "Grounding module" in (tmp_path / "text_prompted.md").read_text()


@pytest.mark.long
def test_real_scans_are_looked_at_when_they_are_there(
    model: Path, tmp_path: Path, shared_data: Path
) -> None:
    words = ["--model", str(model), "--output", str(tmp_path), "--scans", "1", "--draws", "1",
             "--whole-heads", str(shared_data / "whole_head"), "--every", "150",
             "--real-steps", "2", "--real-taught", "4",
             "--slices", f"acdc={shared_data / 'acdc'}",
             "--parts", "real_prompted,real_grounding"]  # fmt: skip
    result = main(words)
    assert set(result["real_prompted"]["heart"]["by_name"]) <= {
        "left ventricle", "myocardium", "right ventricle"
    }  # fmt: skip
    assert 0.0 <= result["real_grounding_unseen_miou"] <= 1.0
    assert "Real scans" in (tmp_path / "text_prompted.md").read_text()


def test_overlap_of_masks() -> None:
    first = torch.tensor([True, True, False, False])
    assert iou(first, torch.tensor([False, True, True, False])) == pytest.approx(1 / 3)
    assert iou(~first & first, ~first & first) == 1.0


@pytest.mark.long
def test_a_segmenter_learns_from_pairs_in_seconds() -> None:
    drawn = [captioned_image(3, number) for number in range(24)]
    pairs = [(torch.from_numpy(one.image)[None], torch.from_numpy(one.label)) for one in drawn]
    dice = segmenter_dice(pairs, pairs[:8], 8.0)
    assert len(dice) == 7 and max(dice.values()) > 0.2
