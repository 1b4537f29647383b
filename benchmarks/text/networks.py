"""The networks of the small text-to-image model, in the classes of ``diffusers``, untrained."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.text.captions import LENGTH, WORDS
from medsegdiff.prompting import CROSS

LAYERS = ("down_blocks.0.attentions.1", "down_blocks.1.attentions.0")
"""Layers whose attention is taught and finds words: on the way down, where a place knows its
surroundings, and not yet the whole picture, so that it cannot answer for others."""
TAUGHT = 2
"""Blocks on the way down with such layers."""
FIRST = 0.1
"""Least share of the places that count for a name at first."""
SURE = 0.7
"""Share of the places of a name that have to be attended to for certain."""


def tokenizer() -> CLIPTokenizer:
    """Each word of a caption is one token; others are spelled."""
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    merges: list[tuple[str, str]] = []
    for letter in "abcdefghijklmnopqrstuvwxyz0123456789,.-":
        for token in (letter, letter + "</w>"):
            vocabulary[token] = len(vocabulary)
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        for first, second in merges:  # those of earlier words come first, here as in use
            parts = merged(parts, first, second)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            vocabulary.setdefault(parts[0], len(vocabulary))
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        files[0].write_text(json.dumps(vocabulary))
        lines = [" ".join(pair) for pair in merges]
        files[1].write_text("\n".join(["#version: 0.2", *lines, ""]))
        return CLIPTokenizer(*map(str, files), model_max_length=LENGTH, pad_token="<|endoftext|>")


def merged(parts: Sequence[str], first: str, second: str) -> list[str]:
    """Parts of a word, two of them joined wherever they follow each other."""
    found: list[str] = []
    for part in parts:
        if found and (found[-1], part) == (first, second):
            found[-1] += part
        else:
            found.append(part)
    return found


def autoencoder() -> AutoencoderKL:
    """64 x 64 pixels of three channels to 32 x 32 latents of four."""
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def text_encoder(tokens: CLIPTokenizer) -> CLIPTextModel:
    """Captions (B, LENGTH) -> (B, LENGTH, 64)."""
    return CLIPTextModel(
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


def denoiser() -> UNet2DConditionModel:
    """Of latents (B, 4, 32, 32), told captions.

    On the way down places attend to words only, at 32 x 32 and at 16 x 16: self-attention would
    tell each place of the whole picture, and take most of the time.
    """
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 96, 96),
        layers_per_block=(2, 1, 1),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        only_cross_attention=(True, True, False),
        cross_attention_dim=64,
        attention_head_dim=(1, 1, 2),
        norm_num_groups=8,
    )


def noise_schedule() -> DDIMScheduler:
    """That of Stable Diffusion, for a network that finds velocities."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


class Attending(AttnProcessor):
    """Cross-attention of one layer that keeps its probabilities (B, places, L)."""

    def __call__(  # type: ignore[no-untyped-def]
        self, attn, hidden_states, encoder_hidden_states, *args: Any, **kwargs: Any
    ) -> Tensor:
        """What the layer gives."""
        split = (attn.heads, -1)
        queries = attn.to_q(hidden_states).unflatten(-1, split).float()
        keys = attn.to_k(encoder_hidden_states).unflatten(-1, split).float()
        logits = attn.scale * torch.einsum("bnhd,blhd->bhnl", queries, keys).float()
        self.probabilities = logits.softmax(dim=-1).mean(dim=1)
        out: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        return out


def attending(unet: UNet2DConditionModel) -> list[Attending]:
    """Let the last cross-attention of each level keep its probabilities; the layers that do."""
    kept: list[Attending] = []
    processors: dict[str, Any] = {}
    for name in unet.attn_processors:
        processors[name] = AttnProcessor()  # for few tokens faster than the fused one
        if name.startswith(LAYERS) and CROSS in name:
            kept.append(Attending())
            processors[name] = kept[-1]
    unet.set_attn_processor(processors)
    return kept


def on_the_way_down(unet: UNet2DConditionModel, x_t: Tensor, t: Tensor, told: Tensor) -> None:
    """Run the part of a U-Net up to the layers whose attention is taught."""
    embedded = unet.time_embedding(unet.time_proj(t).to(x_t.dtype))
    maps = unet.conv_in(x_t)
    for block in unet.down_blocks[:TAUGHT]:
        maps, _ = block(hidden_states=maps, temb=embedded, encoder_hidden_states=told)


def misplaced(
    probabilities: Tensor,
    members: Tensor,
    shares: Tensor,
    known: Tensor,
    weight: Tensor,
    progress: float,
) -> Tensor:
    """How badly the attention to names tells which pictures they are in.

    Large models learn where words are from millions of captions. Here a name that is in view has to
    be attended to at some places of its picture, and one that is not, nowhere: learning from sets
    of places (multiple instances). The best places count, as many as the caption says that the name
    is large, and at first a tenth at least. Where they are is not said.

    Pictures of a mosaic are told apart: statistics of normalisation tell every place what is
    anywhere, and in single pictures any place then answers for the whole. In a mosaic they do not
    tell in which of the pictures it is.

    Args:
        probabilities: Attention (B, places, L) to each token, summing to 1.
        members: Which tokens (B, K, L) are those of each name, 0 or 1.
        shares: Share (B, R, K) that each name covers of each picture; R is 1, or 4 of a mosaic.
        known: Whether it is known, (B, R, K), 0 or 1.
        weight: Weight (B,) of each row.
        progress: Share of the training that is done.
    """
    maps = torch.einsum("bpl,bkl->bpk", probabilities, members).clamp(1e-5, 1.0 - 1e-5)
    shares, known = shares.flatten(0, 1), known.flatten(0, 1)
    pictures = len(shares) // len(maps)
    maps, weight = by_picture(maps, pictures), weight.repeat_interleave(pictures)
    places, least = maps.shape[1], max(0.0, FIRST * (1.0 - 2.0 * progress))
    ranked = maps.logit().sort(dim=1, descending=True).values.cumsum(dim=1)
    few = (torch.clamp(SURE * shares, min=least) * places).round().clamp_min(2.0).long()
    best = ranked.gather(1, few[:, None] - 1)[:, 0] / few + 4.0 * least
    there = (shares > 0.0).float()
    counted = known * weight[:, None]
    rarer = (counted * (1.0 - there)).sum() / (counted * there).sum().clamp_min(1.0)
    counted = counted * torch.where(there > 0.0, rarer.clamp(1.0, 3.0), 1.0)
    losses = F.binary_cross_entropy_with_logits(best, there, reduction="none")
    total: Tensor = (losses * counted).sum() / counted.sum().clamp_min(1.0)
    return total


def by_picture(maps: Tensor, pictures: int) -> Tensor:
    """Maps (B, places, K) of mosaics -> (B · pictures, places of each, K), row by row.

    Args:
        maps: Maps of square grids.
        pictures: 1, or 4 for mosaics of two by two.
    """
    if pictures == 1:
        return maps
    side = math.isqrt(maps.shape[1])
    grid = maps.unflatten(1, (2, side // 2, 2, side // 2))
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)
