"""Trains the small text-to-image model of generated images, and saves it as diffusers does.

python -m benchmarks.text_to_image_model --output text_model

An autoencoder comes first, then text encoder and U-Net together. No mask is shown to any of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from medsegdiff.data.captioned import ATTRIBUTES, NAMES, captioned_image, texts_of
from medsegdiff.precision import autocast
from medsegdiff.prompting.pictures import as_picture

LENGTH = 24
"""Tokens of a caption, at most."""
WORDS = ("a", "scan", "with", "no", *NAMES, *ATTRIBUTES)
TRAINING_SEED, HELD_OUT_SEED = 0, 1

logger = logging.getLogger("train")


def tokenizer() -> CLIPTokenizer:
    """Each word of a caption is one token; others are spelled."""
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    merges: list[tuple[str, str]] = []
    for letter in "abcdefghijklmnopqrstuvwxyz0123456789,.-":
        for token in (letter, letter + "</w>"):
            vocabulary[token] = len(vocabulary)
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            vocabulary.setdefault(parts[0], len(vocabulary))
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        files[0].write_text(json.dumps(vocabulary))
        lines = [" ".join(pair) for pair in merges]
        files[1].write_text("\n".join(["#version: 0.2", *lines, ""]))
        return CLIPTokenizer(*map(str, files), model_max_length=LENGTH, pad_token="<|endoftext|>")


def pictures(numbers: Sequence[int], seed: int = TRAINING_SEED) -> tuple[Tensor, list[str]]:
    """(B, 1, 64, 64) pictures and their captions, with and without "a scan with"."""
    drawn = [captioned_image(seed, number) for number in numbers]
    images = torch.stack([as_picture(torch.from_numpy(one.image)[None]) for one in drawn])
    texts = [
        one.caption if number % 2 else ", ".join(texts_of(one.things))
        for one, number in zip(drawn, numbers, strict=True)
    ]
    return images, texts


def batches(size: int) -> Iterator[tuple[Tensor, list[str]]]:
    """Without end, each image once."""
    first = 0
    while True:
        yield pictures(range(first, first + size))
        first += size


def train_autoencoder(minutes: float) -> AutoencoderKL:
    """64 x 64 pixels of three channels to 32 x 32 latents of four, of unit variance."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    drawn = batches(16)

    def loss() -> Tensor:
        images = next(drawn)[0].expand(-1, 3, -1, -1)
        with autocast("auto", images.device):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        return F.mse_loss(decoded.float(), images) + 1e-5 * posterior.kl().mean() / 1024

    vae = fit(nn.ModuleList([vae]), loss, optimizer, minutes, 2e-3, "autoencoder")[0]
    with torch.no_grad():
        latents = vae.encode(pictures(range(256))[0].expand(-1, 3, -1, -1)).latent_dist.mean
    vae.register_to_config(scaling_factor=1.0 / float(latents.std()))
    return vae.eval()


def train_diffusion(
    vae: AutoencoderKL, tokens: CLIPTokenizer, minutes: float, images: int
) -> tuple[CLIPTextModel, UNet2DConditionModel, DDIMScheduler]:
    """Text encoder and U-Net, by the noise that they find; a caption in ten is left out."""
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        only_cross_attention=(True, False, False),  # self-attention at 32 x 32 takes too long
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    alphas = scheduler.alphas_cumprod
    unet.set_attn_processor(AttnProcessor())  # for few tokens faster than the fused one
    both = nn.ModuleList([text, unet])
    optimizer = torch.optim.AdamW(both.parameters(), lr=1e-3, weight_decay=0.01)
    known, texts = encoded(vae, images)

    def loss() -> Tensor:
        chosen = torch.randint(len(known), (16,))
        captions = [texts[int(one)] for one in chosen]
        kept = [caption if float(torch.rand(())) > 0.1 else "" for caption in captions]
        ids = tokens(kept, padding="max_length", max_length=LENGTH, truncation=True,
                     return_tensors="pt").input_ids  # fmt: skip
        latents = known[chosen]
        noise = torch.randn_like(latents)
        t = torch.randint(1000, (len(latents),))
        level = alphas[t].view(-1, 1, 1, 1)
        x_t = level.sqrt() * latents + (1.0 - level).sqrt() * noise
        with autocast("auto", latents.device):
            found = unet(x_t, t, encoder_hidden_states=text(ids)[0]).sample
        return F.mse_loss(found.float(), noise)

    text, unet = fit(both, loss, optimizer, minutes, 1e-3, "diffusion")
    return text.eval(), unet.eval(), scheduler


@torch.no_grad()
def encoded(vae: AutoencoderKL, count: int) -> tuple[Tensor, list[str]]:
    """Scaled latents (count, 4, 32, 32) of images, and their captions."""
    latents, captions = [], []
    for first in range(0, count, 50):
        images, texts = pictures(range(first, min(first + 50, count)))
        with autocast("auto", images.device):
            latents.append(vae.encode(images.expand(-1, 3, -1, -1)).latent_dist.mean.float())
        captions += texts
    return torch.cat(latents) * vae.config.scaling_factor, captions


def fit(
    networks: nn.ModuleList,
    loss: Any,
    optimizer: torch.optim.Optimizer,
    minutes: float,
    rate: float,
    name: str,
) -> list[Any]:
    """Train for so long by this process's clock; the averaged networks. Logs to ``LOSSES``."""
    average = copy.deepcopy(networks)
    started, number, recent = time.process_time(), 0, []
    while (spent := (time.process_time() - started) / (60.0 * minutes)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (number + 1) / 100) * min(1.0, 2.0 * (1.0 - spent))
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        number += 1
        share = min(0.998, number / (10 + number))
        with torch.no_grad():
            for mean, new in zip(average.parameters(), networks.parameters(), strict=True):
                mean.lerp_(new, 1.0 - share)
        recent.append(float(value.detach()))
        if number % 100 == 0:
            LOSSES.append({"stage": name, "step": number, "loss": sum(recent) / len(recent)})
            logger.info("%s: step %d, loss %.4f", name, number, LOSSES[-1]["loss"])
            recent = []
    return list(average)


LOSSES: list[dict[str, Any]] = []


def main(words: Sequence[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--autoencoder-minutes", type=float, default=3.0)
    parser.add_argument("--minutes", type=float, default=20.0, help="of the diffusion model")
    parser.add_argument("--images", type=int, default=6000, help="that it learns from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    kept = options.output / "vae"
    if (kept / "config.json").is_file():
        vae = AutoencoderKL.from_pretrained(str(kept)).eval()
    else:
        vae = train_autoencoder(options.autoencoder_minutes)
        vae.save_pretrained(str(kept))
    tokens = tokenizer()
    text, unet, scheduler = train_diffusion(vae, tokens, options.minutes, options.images)
    pipeline = StableDiffusionPipeline(
        vae, text, tokens, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(str(options.output), safe_serialization=True)
    (options.output / "training.json").write_text(json.dumps(LOSSES, indent=1) + "\n")


if __name__ == "__main__":
    main()
