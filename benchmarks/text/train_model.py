"""Trains the small text-to-image model, and saves it as diffusers does.

python -m benchmarks.text.train_model --output text_model --heads synthseg_labels \
    --sets acdc=/data/acdc lidc chase_db1

Pictures are drawn first, then comes an autoencoder, then text encoder and U-Net together. No mask
is shown to any of them: captions say what is in view, and how large. The same command goes on where
it was interrupted; with other minutes, too.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.text.captions import LENGTH, Captions, Text
from benchmarks.text.described import Described
from benchmarks.text.networks import (
    Attending,
    attending,
    autoencoder,
    denoiser,
    misplaced,
    noise_schedule,
    on_the_way_down,
    text_encoder,
    tokenizer,
)
from benchmarks.text.picture_pool import as_floats, drawn, sources
from benchmarks.text.resumable import fit
from medsegdiff.core import write_json
from medsegdiff.models import autocast

BATCH = 16
MOSAICS, SINGLE, DRAWN = 14, 6, 6
"""In a step, mosaics and single pictures that are asked for names, and pictures drawn from."""
CLEAR = 300
"""Steps that pictures are noised to, at most, which are asked for names."""
UNTOLD = 0.15
"""Of those drawn from, the share that is denoised without a caption."""
RATE = 1e-3
"""Learning rate of both stages."""

logger = logging.getLogger("train")


def train_autoencoder(vae: AutoencoderKL, minutes: float, pictures: Tensor, state: Path) -> None:
    """64 x 64 pixels of three channels to 32 x 32 latents of four, of unit variance."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE)

    def loss(_: float) -> Tensor:
        images = as_floats(pictures[torch.randint(len(pictures), (BATCH,))])
        with autocast("auto", images.device):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        return F.mse_loss(decoded.float(), images) + 1e-5 * posterior.kl().mean() / 1024

    averaged = fit(nn.ModuleList([vae]), loss, optimizer, minutes, RATE, state / "vae.pt")
    vae.load_state_dict(averaged[0].state_dict())
    with torch.no_grad():
        latents = vae.encode(as_floats(pictures[:256])).latent_dist.mean
    vae.register_to_config(scaling_factor=1.0 / float(latents.std()))


@torch.no_grad()
def encoded(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Scaled latents (B, 4, 32, 32) of pictures, in half precision."""
    parts = []
    for some in pictures.split(50):
        with autocast("auto", some.device):
            found = vae.encode(as_floats(some)).latent_dist.mean
        parts.append((found.float() * vae.config.scaling_factor).half())
    return torch.cat(parts)


class Batches:
    """Random batches of latents with captions, noised.

    Some pictures have much noise, and a true caption or none: as pictures are drawn. The others are
    asked for names of which some are in view and some are not: little noise, so that what is asked
    for has to be looked for in the picture.
    """

    def __init__(
        self, latents: Tensor, halves: Tensor, shown: Sequence[Described], tokens: CLIPTokenizer
    ) -> None:
        self._latents, self._halves = latents, halves
        self._shown, self._captions = shown, Captions(tokens)
        self._end = int(tokens.eos_token_id)
        self._alphas = noise_schedule().alphas_cumprod

    def asked(self) -> list[dict[str, Tensor]]:
        """Pictures with little noise, asked for names: mosaics of four, and single ones."""
        chosen, rng = self._chosen(4 * MOSAICS)
        mosaics = mosaic(self._halves[chosen].float())
        texts = [
            self._captions.asked([self._shown[int(n)] for n in four], rng)
            for four in chosen.view(-1, 4)
        ]
        found = [self._noised(mosaics, torch.randint(CLEAR, (MOSAICS,)), texts)]
        chosen, rng = self._chosen(SINGLE)
        texts = [self._captions.asked([self._shown[int(n)]], rng) for n in chosen]
        latents = self._latents[chosen].float()
        return [*found, self._noised(latents, torch.randint(CLEAR, (SINGLE,)), texts)]

    def drawn(self) -> dict[str, Tensor]:
        """Pictures with any noise, and true captions or none."""
        chosen, rng = self._chosen(DRAWN)
        texts = [
            self._captions.text("", ())
            if rng.random() < UNTOLD
            else self._captions.told(self._shown[number], rng)
            for number in chosen.tolist()
        ]
        t = (1000 * torch.rand(DRAWN).sqrt()).long()  # words matter where much is hidden
        return self._noised(self._latents[chosen].float(), t, texts)

    def _chosen(self, count: int) -> tuple[Tensor, np.random.Generator]:
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        return torch.randint(len(self._latents), (count,)), rng

    def _noised(self, latents: Tensor, t: Tensor, texts: Sequence[Text]) -> dict[str, Tensor]:
        level = self._alphas[t].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        return {
            "x_t": level.sqrt() * latents + (1.0 - level).sqrt() * noise,
            "wanted": level.sqrt() * noise - (1.0 - level).sqrt() * latents,
            "t": t,
            "weight": level.flatten(),
            **together(texts, self._end),
        }


def mosaic(halves: Tensor) -> Tensor:
    """Latents (4 B, C, h, w) of pictures of half the size -> mosaics (B, C, 2 h, 2 w), by rows."""
    rows = halves.unflatten(0, (-1, 2, 2))
    return rows.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def together(texts: Sequence[Text], end: int) -> dict[str, Tensor]:
    """Captions as tensors: tokens, which tokens are those of each name, shares, what is known."""
    names = max(1, *(len(text.places) for text in texts))
    pictures = max(1, *(len(share) for text in texts for share in text.shares))
    ids = torch.full((len(texts), LENGTH), end)
    members = torch.zeros(len(texts), names, LENGTH)
    shares = torch.zeros(len(texts), pictures, names)
    known = torch.zeros(len(texts), pictures, names)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        for k, (places, found) in enumerate(zip(text.places, text.shares, strict=True)):
            members[row, k, list(places)] = 1.0
            for picture, share in enumerate(found):
                if share is not None:
                    shares[row, picture, k], known[row, picture, k] = share, 1.0
    return {"ids": ids, "members": members, "shares": shares, "known": known}


def train_diffusion(vae: AutoencoderKL, batches: Batches, minutes: float, folder: Path) -> None:
    """Text encoder and U-Net, by the velocity that they find, and by where they attend to.

    The pipeline of averaged networks is saved with each state, and at the end.
    """
    tokens = tokenizer()
    text, unet = text_encoder(tokens), denoiser()
    layers = attending(unet)
    both = nn.ModuleList([text, unet])
    optimizer = torch.optim.AdamW(both.parameters(), lr=RATE, weight_decay=0.01)

    def loss(done: float) -> Tensor:
        asked, drawn = batches.asked(), batches.drawn()
        words = torch.zeros(())
        for given in asked:
            with autocast("auto", given["x_t"].device):
                on_the_way_down(unet, given["x_t"], given["t"], text(given["ids"])[0])
            words = words + astray(layers, given, done)
        with autocast("auto", drawn["x_t"].device):
            told = text(drawn["ids"])[0]
            found = unet(drawn["x_t"], drawn["t"], encoder_hidden_states=told).sample
        error = F.mse_loss(found.float(), drawn["wanted"])
        PARTS.append((float(error.detach()), float(words.detach())))
        if len(PARTS) % 100 == 0:
            logger.info("squared error %.3f, astray %.3f", *np.mean(PARTS[-100:], axis=0))
        return error + words + 0.2 * astray(layers, drawn, done)

    def keep(networks: Sequence[Any]) -> None:
        pipeline = StableDiffusionPipeline(
            vae, cast(CLIPTextModel, networks[0]), tokens,
            cast(UNet2DConditionModel, networks[1]), noise_schedule(), None, None,
            requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(str(folder), safe_serialization=True)

    fit(both, loss, optimizer, minutes, RATE, folder / "state" / "diffusion.pt", keep)


def astray(layers: Sequence[Attending], given: dict[str, Tensor], done: float) -> Tensor:
    """How far the attention of some layers is from what captions say, as mean over layers."""
    members, shares, known, weight = (
        given[name] for name in ("members", "shares", "known", "weight")
    )
    losses = [
        misplaced(layer.probabilities.float(), members, shares, known, weight, done)
        for layer in layers
    ]
    return torch.stack(losses).mean()


PARTS: list[tuple[float, float]] = []
"""Squared error and misplaced attention of each step."""


def main(words: Sequence[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--heads", type=Path, help="folder of label maps of heads")
    parser.add_argument("--sets", nargs="*", default=[], help="real sets, such as lidc=/data/lidc")
    parser.add_argument("--autoencoder-minutes", type=float, default=6.0, help="of this processor")
    parser.add_argument("--minutes", type=float, default=70.0, help="of the diffusion model")
    parser.add_argument("--images", type=int, default=40_000, help="that it learns from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    PARTS.clear()
    state = options.output / "state"
    state.mkdir(parents=True, exist_ok=True)
    pictures, shown = drawn(sources(options.heads, options.sets), options.images)
    logger.info("%d pictures", len(pictures))
    vae = autoencoder()
    train_autoencoder(vae, options.autoencoder_minutes, pictures, state)
    halves = encoded(vae.eval(), F.avg_pool2d(pictures.float(), 2).byte())
    batches = Batches(encoded(vae, pictures), halves, shown, tokenizer())
    train_diffusion(vae, batches, options.minutes, options.output)
    means = [np.mean(PARTS[n : n + 100], axis=0).tolist() for n in range(0, len(PARTS), 100)]
    described = {"squared error and misplaced attention, of each 100 steps": means}
    write_json(options.output / "training.json", described)


if __name__ == "__main__":
    main()
