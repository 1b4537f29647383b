"""The layout of Stable Diffusion 1.5, whole, with random weights: shapes and memory."""

from __future__ import annotations

import resource

import pytest
import torch

from medsegdiff.prompting.drawing import DrawOptions, draw
from medsegdiff.prompting.grounding import GroundingHead, unet_features, word_embeddings
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.prompt_options import PromptOptions
from medsegdiff.prompting.word_segmenter import PromptSegmenter
from tests.tiny_pipeline import diffusers, tiny_tokenizer, transformers


@pytest.fixture(scope="module")
def full_size(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TextToImage:
    if not request.config.getoption("--full-size"):
        pytest.skip("takes a minute and 4 GiB: ask for it with --full-size")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
        )
    )
    for network in (unet, vae):
        network.to(torch.bfloat16).to_empty(device="cpu")
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    tokens = tiny_tokenizer(tmp_path_factory.mktemp("tokens"), length=77)
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae, text.to(torch.bfloat16), tokens, unet, scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    return TextToImage(pipeline, "full size")


@pytest.mark.timeout(1800)
def test_every_step_has_the_right_shapes_in_bounded_memory(full_size: TextToImage) -> None:
    parameters = sum(p.numel() for p in full_size.unet.parameters())
    assert 859e6 < parameters < 860e6  # that of Stable Diffusion 1.5
    assert full_size.size == (512, 512)
    options = PromptOptions(draws=1, levels=(0.2,), presence=0.0, crf=8.0)
    found = PromptSegmenter(full_size, options)(torch.rand(1, 100, 120), ["liver", "kidney"])
    assert found.probability.shape == (1, 3, 100, 120) and found.present.shape == (2,)
    caption = full_size.caption(["liver", "kidney"])
    latents = torch.randn(1, 4, 64, 64, dtype=torch.bfloat16)
    features, attention = unet_features(full_size, latents, latents, 100, caption)
    assert len(features) == 9 and attention.shape == (1, 2, 64, 64)
    head = GroundingHead([f.shape[1] for f in features], 768)
    assert head(features, attention, word_embeddings(caption)).shape == (1, 2, 128, 128)
    pictures, maps = draw(full_size, caption, latents, DrawOptions(steps=1, excite=0.1))
    assert pictures.shape == (1, 3, 512, 512) and maps.shape == (1, 2, 64, 64)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    assert peak < 12.0
    print(f"peak memory {peak:.1f} GiB")
