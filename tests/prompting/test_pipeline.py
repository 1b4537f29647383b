from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.prompting.pipeline import TextToImage, load_pipeline
from tests.tiny_pipeline import save_tiny


def test_size_is_that_of_the_models_own_images(tiny: TextToImage) -> None:
    assert tiny.size == (32, 32)
    assert tiny.process.n_timesteps == 1000


def test_a_caption_knows_where_its_names_are(tiny: TextToImage) -> None:
    caption = tiny.caption(["liver", "left kidney"], "a scan with {}")
    assert caption.text == "a scan with liver, left kidney"
    ids = tiny.tokenizer(caption.text).input_ids
    said = [tiny.tokenizer.decode([ids[p] for p in places]) for places in caption.places]
    assert [text.strip() for text in said] == ["liver", "left kidney"]
    assert caption.embedding.shape == (1, 12, 16)


def test_the_same_word_twice_has_two_places(tiny: TextToImage) -> None:
    caption = tiny.caption(["kidney", "left kidney"])
    assert set(caption.places[0]).isdisjoint(caption.places[1])


def test_more_text_than_the_model_reads_is_refused(tiny: TextToImage) -> None:
    with pytest.raises(UsageError, match="Name fewer"):
        tiny.caption(["liver"] * 7)
    with pytest.raises(UsageError, match="must hold"):
        tiny.caption(["liver"], "a scan")


def test_noise_is_added_as_diffusers_does(tiny: TextToImage) -> None:
    latents, noise = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    expected = tiny.scheduler.add_noise(latents, noise, torch.tensor([300, 300]))
    torch.testing.assert_close(tiny.noised(latents, noise, 300), expected)


def test_a_share_of_the_forward_process_is_a_step_above_the_clean_latents(
    tiny: TextToImage,
) -> None:
    assert [tiny.timestep(share) for share in (0.0, 0.1, 1.0)] == [1, 100, 999]


def test_each_picture_has_noise_of_its_own(tiny: TextToImage) -> None:
    first = tiny.noise(2, seed=3)
    assert first.shape == (2, 4, 16, 16)
    assert torch.equal(first, tiny.noise(2, seed=3, number=0))
    assert not torch.equal(first, tiny.noise(2, seed=3, number=1))


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_other_predictions_become_noise(kind: str, tmp_path: Path, tiny: TextToImage) -> None:
    other = load_pipeline(
        save_tiny(tmp_path / "other", kind), torch.device("cpu"), dtype=torch.float32
    )
    x_t = torch.randn(1, 4, 16, 16)
    embedding = tiny.caption(["liver"]).embedding
    with torch.no_grad():
        out = other.unet(x_t, 400, encoder_hidden_states=embedding).sample
    level = other.scheduler.alphas_cumprod[400]
    x_0 = level.sqrt() * x_t - (1 - level).sqrt() * out if kind == "v_prediction" else out
    expected = (x_t - level.sqrt() * x_0) / (1 - level).sqrt()
    torch.testing.assert_close(other.predict(x_t, 400, embedding), expected, atol=1e-4, rtol=1e-4)


def test_grey_pictures_become_latents_and_back(tiny: TextToImage) -> None:
    latents = tiny.encode(torch.rand(2, 1, 32, 32))
    assert latents.shape == (2, 4, 16, 16)
    decoded = tiny.decode(latents)
    assert decoded.shape == (2, 3, 32, 32) and decoded.abs().max() <= 1.0


def test_what_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model_index"):
        load_pipeline(tmp_path, torch.device("cpu"), dtype=torch.float32)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_pipeline(folder, torch.device("cpu"), dtype=torch.float32)
