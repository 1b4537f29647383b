"""Masks of words in a given image, without any mask to learn from.

Noise the image to several levels, let the U-Net denoise it while it is told the words, and see
where each word is attended to; every draw of noise is one opinion. Whether a word is there at all
is told by the denoising error: an image with a kidney is denoised better if a kidney is named (Li
et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.prompting.attention import recorded
from medsegdiff.prompting.maps import competing, propagated, resize, word_maps
from medsegdiff.prompting.pipeline import Caption, TextToImage
from medsegdiff.prompting.refine import guided
from medsegdiff.types import UsageError


@dataclass(frozen=True)
class PromptOptions:
    """How words are looked for.

    Args:
        template: the text around the names, which stand at ``{}``.
        levels: of noise, as shares of the forward process.
        draws: of noise at each level.
        coarsest: places along the longer side of the coarsest attention that counts.
        propagation: how often maps spread along self-attention.
        background: share of a map's range that a place has to reach.
        sharpness: of the competition between words.
        radius: of guided filtering, in pixels of the model's image; 0: none.
        presence: standard errors by which a word has to lower the denoising error; None: words are
            taken to be there.
        seed: of the noise.
    """

    template: str = "{}"
    levels: tuple[float, ...] = (0.1, 0.2, 0.3)
    draws: int = 8
    coarsest: int = 16
    propagation: int = 1
    background: float = 0.4
    sharpness: float = 10.0
    radius: int = 2
    presence: float | None = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.levels or not all(0.0 < level < 1.0 for level in self.levels):
            raise UsageError(
                "--levels", "must be shares between 0 and 1", "Give for instance 0.1,0.3"
            )
        if self.draws < 1:
            raise UsageError(
                "--draws", f"must be 1 or more, not {self.draws}", "Give for instance 8"
            )


@dataclass(frozen=True)
class Prompted:
    """What was found in a picture.

    Attributes:
        probability: (draws, K + 1, H, W) of no word and of each, summing to 1.
        gain: (K,) by how much naming a word lowers the denoising error, in standard errors over
            draws and levels; empty if it was not asked for.
        present: (K,) which words are taken to be there.
    """

    probability: Tensor
    gain: Tensor
    present: Tensor


FindWords = Callable[[Tensor, Sequence[str], int], Prompted]
"""(picture, names, number of the picture) -> what was found."""


class PromptSegmenter:
    """Finds words in pictures.

    Args:
        model: the pipeline's networks.
        options: how.
    """

    def __init__(self, model: TextToImage, options: PromptOptions | None = None) -> None:
        self.model, self.options = model, options or PromptOptions()

    @torch.no_grad()
    def __call__(self, picture: Tensor, names: Sequence[str], number: int = 0) -> Prompted:
        """Find names in a picture.

        Args:
            picture: (1 or 3, H, W) in [-1, 1], of any size.
            names: K of them, of one or more words.
            number: of the picture, such as its slice; another one gets other noise.

        Raises:
            UsageError: no names, or more than the model reads.
        """
        if not names:
            raise UsageError("the words", "are missing", "Name what is to be found")
        fitted, inside = fit(picture[None].to(self.model.device), self.model.size)
        latents = self.model.encode(fitted)
        noise = self._noise(latents, number)
        gain = torch.zeros(0)
        present = torch.ones(len(names), dtype=torch.bool)
        if self.options.presence is not None:
            gain = self.gains(latents, noise, names).cpu()
            present = gain > self.options.presence
        probability = torch.zeros(
            (self.options.draws, 1 + len(names), *picture.shape[-2:]), device=latents.device
        )
        probability[:, 0] = 1.0
        if present.any():
            named = [name for name, there in zip(names, present, strict=True) if there]
            maps = self.maps(latents, noise, self.model.caption(named, self.options.template))
            maps = guided(resize(maps, fitted.shape[-2:]), fitted, self.options.radius)
            maps = resize(maps[..., inside[0], inside[1]], picture.shape[-2:])
            found = competing(maps, self.options.background, self.options.sharpness)
            kept = [0, *(1 + int(k) for k in present.nonzero())]
            probability[:, kept] = found
        return Prompted(probability, gain, present)

    def maps(self, latents: Tensor, noise: Tensor, caption: Caption) -> Tensor:
        """(draws, K, h, w) attention to each name of a caption, over all levels of noise."""
        with recorded(self.model.unet, latents) as record:
            for t in self._steps():
                self.model.predict(self.model.noised(latents, noise, t), t, caption.embedding)
        maps = word_maps(record, caption.places, self.options.coarsest)
        return propagated(maps, record, self.options.propagation)

    def gains(self, latents: Tensor, noise: Tensor, names: Sequence[str]) -> Tensor:
        """(K,) what naming each lowers the error by, over draws and levels, in standard errors."""
        template = self.options.template
        texts = [names, *([n for n in names if n is not name] for name in names)]
        captions = [self.model.caption(text, template) for text in texts]
        differences = []
        for t in self._steps():
            x_t = self.model.noised(latents, noise, t)
            errors = [
                (self.model.predict(x_t, t, caption.embedding) - noise).square().mean(dim=(1, 2, 3))
                for caption in captions
            ]
            differences.append(torch.stack([without - errors[0] for without in errors[1:]]).float())
        gains = torch.cat(differences, dim=1)
        spread = gains.std(dim=1) / gains.shape[1] ** 0.5
        return gains.mean(dim=1) / spread.clamp_min(1e-12)

    def _steps(self) -> list[int]:
        last = self.model.n_timesteps - 1
        return [min(last, max(1, round(level * last))) for level in self.options.levels]

    def _noise(self, latents: Tensor, number: int) -> Tensor:
        """(draws, C, h, w), the same on every device."""
        generator = torch.Generator().manual_seed(self.options.seed + 1_000_003 * number)
        shape = (self.options.draws, *latents.shape[1:])
        return torch.randn(shape, generator=generator).to(latents)


def fit(picture: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[slice, slice]]:
    """Resize a picture (1, C, H, W) into a frame, its shape kept; where it lies in the frame.

    What is left of the frame takes the picture's border.
    """
    height, width = picture.shape[-2:]
    scale = min(size[0] / height, size[1] / width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    resized = resize(picture, inner)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    sides = (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top)
    padded = F.pad(resized, sides, mode="replicate")
    return padded, (slice(top, top + inner[0]), slice(left, left + inner[1]))
