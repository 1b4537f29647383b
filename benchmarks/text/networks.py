"""The networks of the small text-to-image model, in the classes of ``diffusers``, untrained."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.text import captioned_slices
from medsegdiff.models import autocast
from medsegdiff.phantoms import ATTRIBUTES, NAMES
from medsegdiff.prompting import CROSS

LENGTH = 20
"""Tokens of a caption, at most."""
WORDS = ("a", "scan", "with", *NAMES, *ATTRIBUTES, *captioned_slices.WORDS)
MATCHED = (*NAMES, *captioned_slices.WORDS)
"""Words that name something that has a place."""


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
    """64 x 64 pixels of three channels to 16 x 16 latents of eight."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


class Critic:
    """Tells pictures from decoded ones, patch by patch, by MONAI's least-squares loss."""

    def __init__(self) -> None:
        self.network = PatchDiscriminator(
            spatial_dims=2, channels=32, in_channels=3, num_layers_d=2
        )
        self.criterion = PatchAdversarialLoss(criterion="least_squares")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=5e-4, betas=(0.5, 0.99))

    def learn(self, pictures: Tensor, decoded: Tensor) -> None:
        """One step on (B, 3, H, W) of both kinds."""
        error = self._error(pictures, True, learning=True) + self._error(
            decoded, False, learning=True
        )
        self.optimizer.zero_grad()
        (0.5 * error).backward()
        self.optimizer.step()

    def doubt(self, decoded: Tensor) -> Tensor:
        """How little (B, 3, H, W) of the decoder pass for pictures; nothing is learned from it."""
        self.network.requires_grad_(False)
        error = self._error(decoded, True, learning=False)
        self.network.requires_grad_(True)
        return error

    def _error(self, images: Tensor, genuine: bool, learning: bool) -> Tensor:
        with autocast("auto", images.device):
            judged = self.network(images)[-1].float()
        error: Tensor = self.criterion(judged, genuine, for_discriminator=learning)
        return error


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
    """Of latents (B, 8, 16, 16), told captions."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(48, 64, 96),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=2,
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


class Matching(AttnProcessor):
    """Cross-attention of one layer, and how well it tells which words an image's caption has.

    Large models learn where words are from millions of captions. Here a word has to match some
    places of the images whose captions have it, and no place of others: image-text matching (after
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML
    2021), of images that are denoised without their caption, at the places that match best.
    """

    PLACES = 4
    """Of an image, that count for a word: the best ones."""

    def __call__(  # type: ignore[no-untyped-def]
        self, attn, hidden_states, encoder_hidden_states, *args: Any, **kwargs: Any
    ) -> Tensor:
        """What the layer gives; its queries are kept."""
        self.layer, self.queries = attn, attn.to_q(hidden_states)
        out: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        return out

    def loss(
        self, told: Tensor, ids: Tensor, there: Tensor, untold: Tensor, weight: Tensor
    ) -> Tensor:
        """Cross-entropy of images with each word of the captions.

        Args:
            told: Encoded captions (B + 1, L, E), the last one empty.
            ids: Tokens (B + 1, L) of the captions.
            there: Whether each known name is in a caption, (B + 1, tokens known).
            untold: Whether each image was denoised without its caption, (B,).
            weight: Weight (B,) of each image; less if it is noisy.
        """
        names = there.any(dim=0)[ids]
        if not names.any() or not untold.any():
            return told.sum() * 0.0
        split = (self.layer.heads, -1)
        keys = self.layer.to_k(told[names]).unflatten(-1, split).float()
        queries = self.queries[untold].unflatten(-1, split).float()
        logits = self.layer.scale * torch.einsum("bnhd,thd->bthn", queries, keys)
        best = logits.topk(self.PLACES, dim=-1).values.mean(dim=-1)
        target = there[:-1][untold][:, ids[names]][..., None].float().expand_as(best)
        losses = F.binary_cross_entropy_with_logits(best, target, reduction="none")
        return (losses.mean(dim=(1, 2)) * weight[untold]).mean()


def matching_layers(unet: UNet2DConditionModel) -> list[Matching]:
    """Let the cross-attention at the finest level match words; the layers that do."""
    finest = ("down_blocks.0", "up_blocks.2")
    matched: list[Matching] = []
    processors: dict[str, Any] = {}
    for name in unet.attn_processors:
        processors[name] = AttnProcessor()  # for few tokens faster than the fused one
        if name.startswith(finest) and CROSS in name:
            matched.append(Matching())
            processors[name] = matched[-1]
    unet.set_attn_processor(processors)
    return matched


def named(tokens: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """(B, tokens known) which names each caption has."""
    found = torch.zeros(len(captions), len(tokens), dtype=torch.bool)
    known = {name: tokens.convert_tokens_to_ids(f"{name}</w>") for name in MATCHED}
    for row, caption in zip(found, captions, strict=True):
        row[[known[word] for word in caption.replace(",", "").split() if word in known]] = True
    return found
