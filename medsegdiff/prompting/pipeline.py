"""Stable-Diffusion-like pipelines: image ↔ latents, words → embeddings, one step of the U-Net.

This is the only file that uses ``diffusers``. The parts of a pipeline are those of Rombach et al.,
"High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.prediction import eps_from_v, eps_from_x_0

INSTALL = "pip install 'medsegdiff[text]'"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class Caption:
    """An encoded text that names things.

    Args:
        text: Text of the whole caption.
        names: Names of its things, in the caption's order.
        embedding: Embedding (1, L, E) of all tokens.
        places: Positions of each thing's tokens among the L tokens.
    """

    text: str
    names: tuple[str, ...]
    embedding: Tensor
    places: tuple[tuple[int, ...], ...]


class TextToImage:
    """A pipeline's networks, as the rest of the package needs them.

    Args:
        pipeline: Pipeline with the parts of a ``StableDiffusionPipeline``: ``unet``
            (``UNet2DConditionModel``), ``vae``, ``text_encoder``, ``tokenizer``, ``scheduler``.
        name: Name for messages and records.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        self.pipeline, self.name = pipeline, name
        self.unet: Any = pipeline.unet.eval().requires_grad_(False)
        self.vae: Any = pipeline.vae.eval().requires_grad_(False)
        self.text_encoder: Any = pipeline.text_encoder.eval().requires_grad_(False)
        self.tokenizer: Any = pipeline.tokenizer
        self.scheduler: Any = pipeline.scheduler
        self.factor: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.process = GaussianProcess(alphas_cumprod=self.scheduler.alphas_cumprod)

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.unet.parameters()).device

    @property
    def size(self) -> tuple[int, int]:
        """Size (H, W) in pixels of the images that the model was trained on."""
        sample = self.unet.config.sample_size
        height, width = (sample, sample) if isinstance(sample, int) else sample
        return self.factor * height, self.factor * width

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 1 or 3, H, W) in [-1, 1] -> latents (B, C, h, w), the mean of their posterior.

        Grey images are repeated in all three channels.
        """
        coloured = images.expand(-1, self.vae.config.in_channels, -1, -1)
        posterior = self.vae.encode(coloured.to(self.vae.dtype)).latent_dist
        latents: Tensor = (posterior.mean - self._shift) * self.vae.config.scaling_factor
        return latents.to(self.unet.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> images (B, 3, H, W) in [-1, 1]."""
        unscaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor + self._shift
        images: Tensor = self.vae.decode(unscaled).sample
        return images.float().clamp(-1.0, 1.0)

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    def caption(self, names: Sequence[str], template: str = "{}") -> Caption:
        """Encode a text that names things, and find the tokens of each.

        Args:
            names: Names of one or more words each; none for an empty text, the model's
                unconditional one.
            template: Text with ``{}`` in the place of the names, which are separated by commas.

        Raises:
            UsageError: the template is without ``{}``, or the text is longer than the model reads.
        """
        if "{}" not in template:
            raise UsageError("template", "must hold {} in the place of the names", "Add it")
        text = template.format(", ".join(names)) if names else ""
        limit = self.tokenizer.model_max_length
        ids = self.tokenizer(text, truncation=False).input_ids
        if len(ids) > limit:
            rule = f"make a text of {len(ids)} tokens; {self.name} reads {limit}"
            raise UsageError("the words", rule, "Name fewer things at once")
        places, start = [], 0
        for name in names:
            own = self.tokenizer(name, add_special_tokens=False).input_ids
            found = _find(ids, own, start)
            places.append(tuple(range(found, found + len(own))))
            start = found + len(own)
        return Caption(text, tuple(names), self._embedding(text), tuple(places))

    @torch.no_grad()
    def _embedding(self, text: str) -> Tensor:
        tokens = self.tokenizer(
            text,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        embedding: Tensor = self.text_encoder(tokens.to(self.device))[0]
        return embedding.to(self.unet.dtype)

    def timestep(self, share: float) -> int:
        """The step at a share of the forward process, at least the first noisy one."""
        last = self.process.n_timesteps - 1
        return min(last, max(1, round(share * last)))

    def noise(self, count: int, seed: int, number: int = 0) -> Tensor:
        """(count, C, h, w) standard normal, the same on every device.

        Args:
            count: Number of latents.
            seed: Seed of the whole task.
            number: Number of the picture; each has noise of its own.
        """
        generator = torch.Generator().manual_seed(seed + 1_000_003 * number)
        height, width = (pixels // self.factor for pixels in self.size)
        shape = (count, self.unet.config.in_channels, height, width)
        return torch.randn(shape, generator=generator).to(self.device, self.unet.dtype)

    def noised(self, latents: Tensor, noise: Tensor, t: int) -> Tensor:
        """x_t of latents (B, C, h, w) at a step of the forward process (Ho et al. 2020, eq. 4)."""
        return self.process.add_noise(latents, noise, torch.tensor([t], device=latents.device))

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: int, embedding: Tensor) -> Tensor:
        """The noise eps predicted from x_t (B, C, h, w) with a text's embedding (1 or B, L, E)."""
        embeddings = embedding.expand(len(x_t), -1, -1)
        found: Tensor = self.unet(x_t, t, encoder_hidden_states=embeddings).sample
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return found
        a, s = self.process.coefficients(torch.tensor([t], device=x_t.device), x_t)
        return (eps_from_v if kind == "v_prediction" else eps_from_x_0)(x_t, found, a, s)


def load_pipeline(model: str | Path, device: torch.device, *, dtype: torch.dtype) -> TextToImage:
    """Load a pipeline in the ``diffusers`` format.

    Args:
        model: Folder with ``model_index.json``, or an identifier of the Hugging Face hub, which is
            downloaded unless it is cached. Weights must be safetensors.
        device: Device for the networks.
        dtype: Type of the weights.

    Raises:
        InputError: the model does not exist, is of another kind, or its weights do not fit.
        UsageError: the extra ``text`` is not installed.
    """
    try:
        import diffusers
        import transformers
    except ImportError as error:
        rule = "need diffusers and transformers, which are not installed"
        raise UsageError("text-to-image models", rule, INSTALL) from error
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    remedy = "Give the folder of a saved diffusers pipeline, or its name on the hub"
    local = Path(model)
    if local.is_dir() and not (local / "model_index.json").is_file():
        raise InputError(local, "has no model_index.json, as a diffusers pipeline has", remedy)
    further = {"safety_checker": None, "requires_safety_checker": False}
    options: dict[str, Any] = {"use_safetensors": True}
    options |= {"low_cpu_mem_usage": False}  # True needs accelerate
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(str(model), **options, **further)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(model, f"cannot be loaded: {first_line(error)}", remedy) from error
    missing = [part for part in PARTS if getattr(pipeline, part, None) is None]
    if missing or type(pipeline.unet).__name__ != "UNet2DConditionModel":
        rule = f"is a {type(pipeline).__name__}, not like Stable Diffusion"
        raise InputError(
            model, rule, "Choose a model with a UNet2DConditionModel and one text encoder"
        )
    return TextToImage(pipeline.to(device, dtype), str(model))


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _find(ids: Sequence[int], own: Sequence[int], start: int) -> int:
    for place in range(start, len(ids) - len(own) + 1):
        if list(ids[place : place + len(own)]) == list(own):
            return place
    raise ValueError(f"tokens {list(own)} are not in {list(ids)} from place {start} on.")
