"""A pipeline in the layout of Stable Diffusion, with random weights, that runs in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="the extra text is not installed")
transformers = pytest.importorskip("transformers", reason="the extra text is not installed")

WORDS = ("a", "scan", "with", "liver", "kidney", "left")


def tiny_tokenizer(folder: Path, length: int = 12) -> Any:
    """Each of ``WORDS`` is a token; others are spelled."""
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    merges: list[str] = []
    for letter in "abcdefghijklmnopqrstuvwxyz,":
        vocabulary[letter], vocabulary[letter + "</w>"] = len(vocabulary), len(vocabulary) + 1
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            if f"{parts[0]} {parts[1]}" not in merges:
                merges.append(f"{parts[0]} {parts[1]}")
            parts = [parts[0] + parts[1], *parts[2:]]
            vocabulary.setdefault(parts[0], len(vocabulary))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=length,
        pad_token="<|endoftext|>",
    )


def save_tiny(folder: Path, prediction: str = "epsilon") -> Path:
    """Write it as diffusers does: 32 x 32 pixels, 16 x 16 latents."""
    torch.manual_seed(0)
    tokens = tiny_tokenizer(folder)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False, prediction_type=prediction, steps_offset=1
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae, text, tokens, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    return folder
