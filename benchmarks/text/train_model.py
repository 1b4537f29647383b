"""Trains the small text-to-image model of generated images, and saves it as diffusers does.

python -m benchmarks.text.train_model --output text_model --slices hippocampus_mr lidc chase_db1

An autoencoder comes first, then text encoder and U-Net together. No mask is shown to any of them.
What is in the output already is gone on from; an autoencoder is kept as it is, unless it is given
minutes.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.text.captioned_slices import captioned_slices
from benchmarks.text.networks import (
    LENGTH,
    Critic,
    autoencoder,
    denoiser,
    matching_layers,
    named,
    noise_schedule,
    text_encoder,
    tokenizer,
)
from medsegdiff.core import read_json, write_json
from medsegdiff.models import autocast
from medsegdiff.phantoms import SIZE, captioned_image, texts_of
from medsegdiff.prompting import Example, as_picture
from medsegdiff.training import weight_average

UNTOLD, CLEAR = 0.3, 0.75
"""Share of images that are denoised without their caption, and of those, share that are noised no
further than halfway, so that what they show can be matched with words."""
ADVERSARIAL = 0.02
"""Weight of the critic's doubt beside the squared error of the autoencoder."""
TRAINING_SEED = 0

logger = logging.getLogger("train")


def pictures(numbers: Sequence[int], seed: int = TRAINING_SEED) -> tuple[Tensor, list[str]]:
    """(B, 3, 64, 64) generated pictures and their captions, with and without "a scan with"."""
    drawn = [captioned_image(seed, number) for number in numbers]
    images = [as_picture(torch.from_numpy(one.image)[None]) for one in drawn]
    texts = [
        captioned(texts_of(one.things), number) for one, number in zip(drawn, numbers, strict=True)
    ]
    return coloured(images), texts


def captioned(names: Sequence[str], number: int) -> str:
    """A caption, with "a scan with" for every other number."""
    return ("a scan with " if number % 2 else "") + ", ".join(names)


def coloured(images: Sequence[Tensor]) -> Tensor:
    """(B, 3, 64, 64), grey in all channels where it has no colours."""
    return torch.stack([image.expand(3, -1, -1) for image in images])


def from_slices(slices: Sequence[Example], seed: int = TRAINING_SEED) -> tuple[Tensor, list[str]]:
    """(B, 3, 64, 64) pictures of real sets and their captions, names in any order."""
    rng = np.random.default_rng(seed)
    texts = []
    for number, one in enumerate(slices):
        names = [one.texts[k][-1] for k in rng.permutation(len(one.texts))]
        texts.append(captioned(names, number))
    return coloured([one.picture for one in slices]), texts


def batches(size: int, slices: Sequence[Example]) -> Iterator[Tensor]:
    """Without end: generated images, each once, and a quarter of slices if there are some."""
    first = 0
    real = from_slices(slices)[0] if slices else torch.zeros(0, 3, SIZE, SIZE)
    while True:
        drawn = pictures(range(first, first + size))[0]
        if len(real):
            drawn[: size // 4] = real[torch.randint(len(real), (size // 4,))]
        yield drawn
        first += size


def train_autoencoder(
    vae: AutoencoderKL, minutes: float, slices: Sequence[Example]
) -> AutoencoderKL:
    """64 x 64 pixels of three channels to 16 x 16 latents of eight, of unit variance.

    The squared error alone gives the mean of what could be there, which has no grain, and livers
    are told by theirs: what is decoded has to pass for a picture as well (Esser et al., "Taming
    Transformers for High-Resolution Image Synthesis", CVPR 2021, as in Stable Diffusion).
    """
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.5, 0.99))
    drawn, critic = batches(16, slices), Critic()

    def loss() -> Tensor:
        images = next(drawn)
        with autocast("auto", images.device):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        critic.learn(images, decoded.detach())
        error = F.mse_loss(decoded.float(), images) + 1e-5 * posterior.kl().mean() / 256
        return error + ADVERSARIAL * critic.doubt(decoded)

    vae = fit(nn.ModuleList([vae]), loss, optimizer, minutes, 1e-3, "autoencoder")[0]
    with torch.no_grad():
        latents = vae.encode(next(batches(256, slices))).latent_dist.mean
    vae.register_to_config(scaling_factor=1.0 / float(latents.std()))
    return vae


def train_diffusion(
    vae: AutoencoderKL,
    tokens: CLIPTokenizer,
    minutes: float,
    learned: tuple[Tensor, list[str]],
    folder: Path,
    compiling: bool,
) -> None:
    """Text encoder and U-Net, by the velocity that they find.

    The text's end and what fills it up are kept as they are without a text: what a caption says is
    then in its words alone, and attention has to go to them.

    The pipeline of averaged networks is saved every ten minutes, and at the end.
    """
    text, unet, scheduler = text_encoder(tokens), denoiser(), noise_schedule()
    if (folder / "unet").is_dir():
        logger.info("going on from what is in %s", folder)
        text = CLIPTextModel.from_pretrained(str(folder / "text_encoder")).float()
        unet = UNet2DConditionModel.from_pretrained(str(folder / "unet")).float()
    alphas = scheduler.alphas_cumprod
    matched = matching_layers(unet)
    denoise = torch.compile(unet) if compiling else unet
    both = nn.ModuleList([text, unet])
    optimizer = torch.optim.AdamW(both.parameters(), lr=1e-3, weight_decay=0.01)
    known, texts = learned

    def loss() -> Tensor:
        chosen = torch.randint(len(known), (16,))
        captions = [texts[int(one)] for one in chosen]
        ids = tokens([*captions, ""], padding="max_length", max_length=LENGTH, truncation=True,
                     return_tensors="pt").input_ids  # fmt: skip
        kept = torch.rand(len(captions)) > UNTOLD
        there = named(tokens, [*captions, ""])
        latents = known[chosen]
        noise = torch.randn_like(latents)
        t = (1000 * torch.rand(len(latents)).sqrt()).long()  # words matter where much is hidden
        clear = ~kept & (torch.rand(len(latents)) < CLEAR)
        t = torch.where(clear, torch.randint(500, t.shape), t)
        level = alphas[t].view(-1, 1, 1, 1)
        x_t = level.sqrt() * latents + (1.0 - level).sqrt() * noise
        with autocast("auto", latents.device):
            told = text(ids)[0]
            given = torch.where(kept[:, None, None], told[:-1], told[-1:])
            found = denoise(x_t, t, encoder_hidden_states=given).sample
            match = [one.loss(told, ids, there, ~kept, level.flatten()) for one in matched]
        wanted = level.sqrt() * noise - (1.0 - level).sqrt() * latents
        leaked = (told - told[-1:]).float()[ids == tokens.pad_token_id].square().mean()
        return F.mse_loss(found.float(), wanted) + 10.0 * leaked + 2.0 * torch.stack(match).mean()

    def keep(networks: Sequence[Any]) -> None:
        text, unet = networks
        pipeline = StableDiffusionPipeline(
            vae, text, tokens, unet, scheduler, None, None, requires_safety_checker=False
        )
        pipeline.save_pretrained(str(folder), safe_serialization=True)

    fit(both, loss, optimizer, minutes, 1e-3, "diffusion", keep)


@torch.no_grad()
def encoded(vae: AutoencoderKL, count: int, slices: Sequence[Example]) -> tuple[Tensor, list[str]]:
    """Scaled latents (B, 8, 16, 16) of so many generated images and of slices, and captions."""
    parts = [pictures(range(first, min(first + 50, count))) for first in range(0, count, 50)]
    parts += [from_slices(slices[first : first + 50]) for first in range(0, len(slices), 50)]
    latents = []
    for images, _ in parts:
        with autocast("auto", images.device):
            latents.append(vae.encode(images).latent_dist.mean.float())
    captions = [text for _, texts in parts for text in texts]
    return torch.cat(latents) * vae.config.scaling_factor, captions


def fit(
    networks: nn.ModuleList,
    loss: Any,
    optimizer: torch.optim.Optimizer,
    minutes: float,
    rate: float,
    name: str,
    keep: Callable[[Sequence[Any]], None] = lambda networks: None,
) -> list[Any]:
    """Train for so long by this process's clock; the averaged networks. Logs to ``LOSSES``."""
    average = weight_average(networks, 0.998).eval()
    averaged = list(cast(nn.ModuleList, average.module))
    started, number, recent, kept = time.process_time(), 0, [], 0.0
    while (spent := (time.process_time() - started) / (60.0 * minutes)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (number + 1) / 100) * min(1.0, 2.0 * (1.0 - spent))
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        number += 1
        average.update_parameters(networks)
        recent.append(float(value.detach()))
        if number % 100 == 0:
            LOSSES.append({"stage": name, "step": number, "loss": sum(recent) / len(recent)})
            logger.info("%s: step %d, loss %.4f", name, number, LOSSES[-1]["loss"])
            recent = []
        if spent * minutes - kept > 10.0:
            kept = spent * minutes
            keep(averaged)
    keep(averaged)
    return averaged


LOSSES: list[dict[str, Any]] = []


def main(words: Sequence[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--autoencoder-minutes", type=float, help="15 if there is none, else 0: it is kept"
    )
    parser.add_argument(
        "--minutes", type=float, default=50.0, help="of the diffusion model; 0: none"
    )
    parser.add_argument("--images", type=int, default=12_000, help="that it learns from")
    parser.add_argument(
        "--slices", nargs="*", default=[], help="real sets, such as lidc=/data/lidc"
    )
    parser.add_argument("--compile", action="store_true", help="for which it takes a C++ compiler")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    LOSSES.clear()
    slices = captioned_slices(options.slices, "training")
    logger.info("%d slices of real sets", len(slices))
    kept = options.output / "vae"
    there = (kept / "config.json").is_file()
    vae = AutoencoderKL.from_pretrained(str(kept)).float().train() if there else autoencoder()
    if options.autoencoder_minutes is None:
        options.autoencoder_minutes = 0.0 if there else 15.0
    if options.autoencoder_minutes:
        vae = train_autoencoder(vae, options.autoencoder_minutes, slices)
        vae.save_pretrained(str(kept))
    elif not there:
        parser.error(f"{kept} holds no autoencoder: give --autoencoder-minutes")
    vae.eval()
    if options.minutes:
        learned = encoded(vae, options.images, slices)
        train_diffusion(vae, tokenizer(), options.minutes, learned, options.output, options.compile)
    log = options.output / "training.json"
    write_json(log, [*(read_json(log) or []), *LOSSES])


if __name__ == "__main__":
    main()
