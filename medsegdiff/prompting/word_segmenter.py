"""Finds the masks of words in an image, without training on masks.

The image is noised to several levels, and the U-Net denoises it with a text of the words. There are
two kinds of evidence for the place of a word: the attention to it, and the change of the U-Net's
prediction when the word is left out (Couairon et al., "DiffEdit", ICLR 2023). Each draw of noise is
one ensemble member. A word is taken to be present if the attention at its strongest places is high
enough, or if naming it lowers the denoising error: an image with a kidney is denoised better if a
kidney is named (Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.attention import recorded
from medsegdiff.prompting.maps import (
    competing,
    peak,
    propagated,
    relative,
    resize,
    scaled,
    token_sums,
    word_maps,
)
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.prompt_options import PromptOptions
from medsegdiff.prompting.refine import conditional_field, guided
from medsegdiff.prompting.windows import windowed

STRONGEST = 16
"""Pixels that tell whether a word is present, by absolute maps."""


@dataclass(frozen=True)
class Prompted:
    """The words found in a picture.

    Attributes:
        probability: Probabilities (draws, K + 1, H, W) of no word and of each word, summing to 1.
        present: Boolean vector (K,): which words are present.
    """

    probability: Tensor
    present: Tensor


@dataclass(frozen=True)
class WordEvidence:
    """Evidence for each of K words in a picture.

    Attributes:
        attention: Attention (draws, K, h, w) to each word, over all levels of noise.
        difference: Root mean square (draws, K, h, w) of the change of the prediction when a word is
            left out, each level relative to its mean; empty if it was not requested.
        gain: Decrease (K,) of the denoising error by naming a word, in standard errors over draws
            and levels; empty if ``difference`` is.
    """

    attention: Tensor
    difference: Tensor
    gain: Tensor

    @property
    def peak(self) -> Tensor:
        """(K,) attention to each word at its strongest places, over all draws."""
        return peak(self.attention.mean(dim=0, keepdim=True))[0]


FindWords = Callable[[Tensor, Sequence[str], int], Prompted]
"""Function (picture, names, number of the picture) -> the words found."""


class PromptSegmenter:
    """Finds words in pictures.

    Args:
        model: Networks of the pipeline.
        options: Options of finding words.
    """

    def __init__(self, model: TextToImage, options: PromptOptions | None = None) -> None:
        self.model, self.options = model, options or PromptOptions()

    @torch.no_grad()
    def __call__(self, picture: Tensor, names: Sequence[str], number: int = 0) -> Prompted:
        """Find names in a picture.

        Args:
            picture: Picture (1 or 3, H, W) in [-1, 1], of any size.
            names: Names, K of them, of one or more words each.
            number: Number of the picture, such as its slice; each number has its own noise.

        Raises:
            UsageError: there are no names, or more than the model reads.
        """
        if not names:
            raise UsageError("the words", "are missing", "Name a structure to find")
        if self.options.absolute:
            return self._attended(picture.to(self.model.device), names, number)
        fitted, inside = fit(picture[None].to(self.model.device), self.model.size)
        latents = self.model.encode(fitted)
        noise = self.model.noise(self.options.draws, self.options.seed, number)
        compares = self.options.evidence != "attention"
        evidence = self.gather_evidence(
            latents, noise, names, compares or self.options.presence >= 0.0
        )
        present = self._present(evidence)
        if present.any() and not present.all():
            named = [name for name, there in zip(names, present, strict=True) if there]
            evidence = self.gather_evidence(latents, noise, named, compares)
        probability = torch.zeros(
            (self.options.draws, 1 + len(names), *picture.shape[-2:]), device=latents.device
        )
        probability[:, 0] = 1.0
        if present.any():
            maps = self._evidence(evidence)
            maps = guided(resize(maps, fitted.shape[-2:]), fitted, self.options.radius)
            maps, seen = maps[..., inside[0], inside[1]], fitted[..., inside[0], inside[1]]
            found = competing(maps, self.options.background, self.options.inverse_temperature)
            found = conditional_field(found, seen, self.options.crf)
            kept = [0, *(1 + int(k) for k in present.nonzero())]
            probability[:, kept] = resize(found, picture.shape[-2:])
        return Prompted(probability, present)

    def _attended(self, picture: Tensor, names: Sequence[str], number: int) -> Prompted:
        """Find names by attention that is a probability; see ``PromptOptions.absolute``."""
        options, size = self.options, self.model.size
        noise = self.model.noise(options.draws, options.seed, number)
        caption = self.model.caption(names, options.template)

        def find(part: Tensor) -> Tensor:
            fitted, inside = fit(part[None], size)
            latents = self.model.encode(fitted)
            with recorded(self.model.unet, latents, options.layers) as record:
                for t in (self.model.timestep(level) for level in options.levels):
                    x_t = self.model.noised(latents, noise, t)
                    self.model.predict(x_t, t, caption.embedding)
            maps = propagated(token_sums(record, caption.places, options.coarsest), record,
                              options.propagation)  # fmt: skip
            maps = guided(resize(maps, size), fitted, options.radius)
            return resize(maps[..., inside[0], inside[1]], part.shape[-2:])

        maps = windowed(picture, options.windows, find).clamp(0.0, 1.0)
        found = with_none(maps, options.background)
        found = conditional_field(found, picture[None], options.crf)
        strongest = found[:, 1:].mean(dim=0).flatten(1).topk(min(STRONGEST, found[0, 0].numel()))
        present = (strongest.values.mean(dim=1) >= options.attended).cpu()
        return Prompted(without(found, ~present), present)

    def gather_evidence(
        self, latents: Tensor, noise: Tensor, names: Sequence[str], compares: bool = True
    ) -> WordEvidence:
        """Evidence for K names in latents (1, C, h, w), noised by (draws, C, h, w) at all levels.

        With ``compares``, predictions are also made without each name, in K more passes per level.
        """
        template = self.options.template
        caption = self.model.caption(names, template)
        steps = [self.model.timestep(level) for level in self.options.levels]
        noised = [(t, self.model.noised(latents, noise, t)) for t in steps]
        with recorded(self.model.unet, latents, self.options.layers) as record:
            found = [self.model.predict(x_t, t, caption.embedding) for t, x_t in noised]
        attention = word_maps(record, caption.places, self.options.coarsest)
        attention = propagated(attention, record, self.options.propagation)
        if not compares:
            return WordEvidence(attention, torch.zeros(0), torch.zeros(0))
        errors = [(eps - noise).square().mean(dim=(1, 2, 3)) for eps in found]
        differences, gains = [], []
        for name in names:
            others = self.model.caption([n for n in names if n is not name], template).embedding
            without = [self.model.predict(x_t, t, others) for t, x_t in noised]
            changes = [
                relative((eps - other).float().square().mean(dim=1, keepdim=True))
                for eps, other in zip(found, without, strict=True)
            ]
            differences.append(torch.stack(changes).mean(dim=0))
            lost = [
                (other - noise).square().mean(dim=(1, 2, 3)) - error
                for other, error in zip(without, errors, strict=True)
            ]
            gains.append(torch.cat(lost).float())
        gain = torch.stack(gains)
        spread = gain.std(dim=1) / gain.shape[1] ** 0.5
        return WordEvidence(
            attention,
            torch.cat(differences, dim=1).sqrt(),
            gain.mean(dim=1) / spread.clamp_min(1e-12),
        )

    def _present(self, evidence: WordEvidence) -> Tensor:
        """(K,) boolean vector: which words are present."""
        present = evidence.peak >= self.options.attended
        if self.options.presence >= 0.0:
            present &= evidence.gain > self.options.presence
        return present.cpu()

    def _evidence(self, evidence: WordEvidence) -> Tensor:
        """(draws, K, h, w) evidence of the kind that the options choose."""
        if self.options.evidence == "attention":
            return evidence.attention
        if self.options.evidence == "difference":
            return evidence.difference
        attention = resize(scaled(evidence.attention), evidence.difference.shape[-2:])
        return attention * scaled(evidence.difference)


def with_none(maps: Tensor, even: float = 0.5) -> Tensor:
    """Attention (B, K, H, W) to words, as probabilities with that of none in front.

    Where the words' sum is above 1, they are divided by it.

    Args:
        maps: Attention to each word, in [0, 1].
        even: Attention to a word at which it is as probable as none, in (0, 1).

    Returns:
        Probabilities (B, K + 1, H, W), summing to 1.
    """
    total = maps.sum(dim=1, keepdim=True)
    none, words = (1.0 - total).clamp_min(0.0), maps / total.clamp_min(1.0)
    joined = torch.cat([even * none, (1.0 - even) * words], dim=1)
    return joined / joined.sum(dim=1, keepdim=True)


def without(probability: Tensor, absent: Tensor) -> Tensor:
    """Probabilities (B, K + 1, H, W) of none and of words, of which some (K,) are taken away."""
    kept = probability.clone()
    kept[:, 1:][:, absent] = 0.0
    kept[:, 0] = 1.0 - kept[:, 1:].sum(dim=1)
    return kept


def fit(picture: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[slice, slice]]:
    """Resize a picture (1, C, H, W) to fit a frame, keeping its aspect; also give its place in it.

    The rest of the frame is filled with the picture's border.
    """
    height, width = picture.shape[-2:]
    scale = min(size[0] / height, size[1] / width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    resized = resize(picture, inner)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    sides = (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top)
    padded = F.pad(resized, sides, mode="replicate")
    return padded, (slice(top, top + inner[0]), slice(left, left + inner[1]))
