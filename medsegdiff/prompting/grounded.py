"""Trains a grounding head with masks of some words, and finds words with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError
from medsegdiff.prompting.grounding import (
    GroundingHead,
    block_outputs,
    unet_features,
    word_embeddings,
)
from medsegdiff.prompting.maps import resize
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.windows import windowed
from medsegdiff.prompting.word_segmenter import Prompted, fit
from medsegdiff.training.averaging import weight_average
from medsegdiff.training.seeding import seeded


@dataclass(frozen=True)
class Example:
    """A picture with masks of some of its things.

    Attributes:
        picture: Picture (1 or 3, H, W) in [-1, 1].
        texts: Texts for each thing; the last one is the plainest.
        masks: Masks (H, W), one for each thing.
    """

    picture: Tensor
    texts: tuple[tuple[str, ...], ...]
    masks: tuple[Tensor, ...]


@dataclass(frozen=True)
class TeachingOptions:
    """Options of training a head, and of finding words with it.

    Args:
        steps: Number of AdamW steps.
        batch: Number of pictures in a step.
        learning_rate: Learning rate at the start; it falls to 0 over the second half.
        level: Level of noise, as a share of the forward process.
        draws: Number of draws of noise when the head finds words.
        template: Text around the names.
        layers: Part of the names of the cross-attention layers to use; empty for all layers.
        absolute: Whether attention is a probability; see ``PromptOptions``.
        windows: Sides in pixels of the windows that a picture is cut into when the head finds
            words; see ``PromptOptions``.
        seed: Seed of all random numbers.
    """

    steps: int = 400
    batch: int = 4
    learning_rate: float = 2e-3
    level: float = 0.1
    draws: int = 4
    template: str = "{}"
    layers: str = ""
    absolute: bool = False
    windows: tuple[int, ...] = ()
    seed: int = 0


def teach(
    model: TextToImage,
    examples: Sequence[Example],
    options: TeachingOptions,
    progress: Callable[[int, int], None] | None = None,
) -> GroundingHead:
    """Train a head by cross-entropy and Dice. Each picture is also asked for an absent thing.

    Args:
        model: Networks of the pipeline, which are not changed.
        examples: Examples, at least one, of any size.
        options: Options of training.
        progress: Callback after each step, called with the number done and the total.

    Returns:
        The head with its averaged weights, which depend only on these arguments.

    Raises:
        ValueError: there is no example, or no step.
    """
    if not examples or options.steps < 1:
        raise ValueError(
            "a head needs one example and one step at least. "
            f"Got {len(examples)} examples and {options.steps} steps."
        )
    with seeded(options.seed, model.device):
        return _taught(model, examples, options, progress)


def _taught(
    model: TextToImage,
    examples: Sequence[Example],
    options: TeachingOptions,
    progress: Callable[[int, int], None] | None,
) -> GroundingHead:
    generator = torch.Generator().manual_seed(options.seed)
    known = sorted({texts[-1] for example in examples for texts in example.texts})
    frames = [framed(example, model.size) for example in examples]
    encoded = [model.encode(picture[None].to(model.device)) for picture, _ in frames]
    head = _new_head(model, encoded[0], options)
    average = weight_average(head, most=0.99)
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.learning_rate, weight_decay=0.01)
    t = model.timestep(options.level)
    for step in range(options.steps):
        total = torch.zeros((), device=model.device)
        for _ in range(options.batch):
            chosen = int(torch.randint(len(frames), (), generator=generator))
            names, target = _words_and_masks(examples[chosen], frames[chosen][1], known, generator)
            latents = encoded[chosen]
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            caption = model.caption(names, options.template)
            seen = unet_features(
                model, latents, noise, t, caption, options.layers, options.absolute
            )
            logits = resize(head(*seen, word_embeddings(caption)), target.shape[-2:])
            total = total + _loss(logits, target[None].to(logits)) / options.batch
        done = step / options.steps
        optimizer.param_groups[0]["lr"] = options.learning_rate * min(1.0, 2.0 * (1.0 - done))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        average.update_parameters(head)
        if progress:
            progress(step + 1, options.steps)
    return cast(GroundingHead, average.module).eval()


def _new_head(model: TextToImage, latents: Tensor, options: TeachingOptions) -> GroundingHead:
    """A head with random weights, as wide as the model's features."""
    nothing, t = model.caption([]), model.timestep(options.level)
    with block_outputs(model.unet) as features:
        model.predict(latents, t, nothing.embedding)
        channels = [map_.shape[1] for map_ in features]
    text_dim = nothing.embedding.shape[-1]
    return GroundingHead(channels, text_dim, absolute=options.absolute).to(model.device)


def framed(example: Example, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The picture in the model's frame, and its masks (K, *size), which are 0 outside of it."""
    picture, inside = fit(example.picture[None], size)
    masks = torch.zeros(len(example.masks), *size)
    if example.masks:
        stacked = torch.stack([mask.float() for mask in example.masks])[None]
        inner = (inside[0].stop - inside[0].start, inside[1].stop - inside[1].start)
        masks[:, inside[0], inside[1]] = (resize(stacked, inner)[0] > 0.5).float()
    return picture[0], masks


def _words_and_masks(
    example: Example, masks: Tensor, known: Sequence[str], generator: torch.Generator
) -> tuple[list[str], Tensor]:
    """The texts that a picture is asked for, and their masks (K, H, W)."""

    def any_of(number: int) -> int:
        return int(torch.randint(number, (), generator=generator))

    names = [texts[any_of(len(texts))] for texts in example.texts]
    plain = {texts[-1] for texts in example.texts}
    missing = [name for name in known if name not in plain]
    if missing:
        names.append(missing[any_of(len(missing))])
        masks = torch.cat([masks, masks.new_zeros(1, *masks.shape[1:])])
    return names, masks


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    chance = logits.sigmoid()
    overlap = 2.0 * (chance * target).sum(dim=(2, 3)) + 1.0
    dice = 1.0 - overlap / (chance.sum(dim=(2, 3)) + target.sum(dim=(2, 3)) + 1.0)
    return F.binary_cross_entropy_with_logits(logits, target) + dice.mean()


class GroundedSegmenter:
    """Finds words in pictures by a trained head, with the interface of ``PromptSegmenter``.

    Args:
        model: Networks of the pipeline.
        head: Head that was trained with this model.
        options: Options that it was trained with; ``draws`` and ``seed`` may differ.
    """

    def __init__(self, model: TextToImage, head: GroundingHead, options: TeachingOptions) -> None:
        self.model, self.head, self.options = model, head.to(model.device).eval(), options

    @torch.no_grad()
    def __call__(self, picture: Tensor, names: Sequence[str], number: int = 0) -> Prompted:
        """Find names in a picture (1 or 3, H, W) in [-1, 1]; see ``PromptSegmenter``."""
        noise = self.model.noise(self.options.draws, self.options.seed, number)
        caption = self.model.caption(names, self.options.template)
        t = self.model.timestep(self.options.level)

        def find(part: Tensor) -> Tensor:
            frame, inside = fit(part[None], self.model.size)
            spread = self.model.encode(frame).expand(len(noise), -1, -1, -1)
            seen = unet_features(
                self.model, spread, noise, t, caption, self.options.layers, self.options.absolute
            )
            logits = resize(self.head(*seen, word_embeddings(caption)), self.model.size)
            return resize(logits[..., inside[0], inside[1]], part.shape[-2:]).sigmoid()

        chance = windowed(picture.to(self.model.device), self.options.windows, find)
        probability = _exclusive_classes(chance)
        present = (probability.mean(dim=0)[1:] > 0.5).flatten(1).any(dim=1)
        return Prompted(probability, present.cpu())


def _exclusive_classes(chance: Tensor) -> Tensor:
    """Independent probabilities (B, K, H, W) of words -> exclusive ones (B, K + 1, H, W).

    The first class is no word. The results are in proportion to the odds p / (1 - p), with odds of
    1 for no word.
    """
    odds = chance / (1.0 - chance).clamp_min(1e-6)
    joined = torch.cat([torch.ones_like(odds[:, :1]), odds], dim=1)
    return joined / joined.sum(dim=1, keepdim=True)


def save_head(file: Path, head: GroundingHead, options: TeachingOptions, model: str) -> None:
    """Write a head with the options and the model that it was trained with."""
    content = {
        "channels": list(head.channels),
        "text_dim": head.text_dim,
        "options": asdict(options),
        "model": model,
        "state": head.state_dict(),
    }
    with written_aside(file) as aside:
        torch.save(content, aside)


def load_head(file: Path) -> tuple[GroundingHead, TeachingOptions]:
    """Read a file from ``save_head``.

    Raises:
        InputError: the file is missing, or was not written by ``save_head``.
    """
    remedy = "Give a file that medsegdiff ground wrote"
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        options = TeachingOptions(**content["options"])
        head = GroundingHead(content["channels"], content["text_dim"], absolute=options.absolute)
        head.load_state_dict(content["state"])
        return head.eval(), options
    except FileNotFoundError:
        raise InputError(file, "no such file", remedy) from None
    except Exception as error:  # pickle and zip have many ways to fail
        raise InputError(file, "holds no grounding head", remedy) from error
