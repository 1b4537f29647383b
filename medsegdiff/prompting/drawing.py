"""Draws pictures from captions, together with the attention to each word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.diffusion.grid import TimeGrid
from medsegdiff.diffusion.prediction import x_0_from_eps
from medsegdiff.diffusion.samplers import move
from medsegdiff.prompting.attention import recorded
from medsegdiff.prompting.maps import peak, propagated, word_maps
from medsegdiff.prompting.pipeline import Caption, TextToImage

SCALE = 1024.0
"""Factor of the loss for excitation, so that half precision does not round its gradient to 0."""

GuidanceKind = Literal["classifier-free", "segmentation-free"]
"""Kind of guidance: away from no caption, or at each place away from the thing at that place."""


@dataclass(frozen=True)
class DrawOptions:
    """Options of drawing pictures.

    Args:
        steps: Number of DDIM steps.
        guidance: Weight w of classifier-free guidance (Ho & Salimans 2022, eq. 6 with w + 1 here);
            eps = eps_caption + (w - 1) (eps_caption - eps_away), so that 1 is no guidance.
        kind: Kind of guidance; ``segmentation-free`` is that of Azarian et al., arXiv 2407.04800.
        scale: Factor a; the strongest word's attention is multiplied by -a at each place.
        switch: Share of the steps before segmentation-free guidance begins; these are guided away
            from no caption.
        layers: Part of the names of the cross-attention layers to use; empty for all layers.
        coarsest: Number of places along the longer side of the coarsest attention to use.
        propagation: Number of times that maps are spread along self-attention.
        excite: Step along the gradient that raises the attention to the most neglected word, in
            standard deviations of the latents (Chefer et al., "Attend-and-Excite", 2023); 0 for
            none.
        excite_until: Share of the forward process below which no such step is made.
    """

    steps: int = 30
    guidance: float = 3.0
    kind: GuidanceKind = "classifier-free"
    scale: float = 1.0
    switch: float = 0.2
    layers: str = ""
    coarsest: int = 16
    propagation: int = 1
    excite: float = 0.0
    excite_until: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in get_args(GuidanceKind):
            rule = f"must be one of {', '.join(get_args(GuidanceKind))}, not {self.kind}"
            raise UsageError("kind", rule, "Choose one")
        if self.steps < 1:
            raise UsageError(
                "steps", f"must be 1 or more, not {self.steps}", "Give for instance 30"
            )


@torch.no_grad()
def draw(
    model: TextToImage, caption: Caption, noise: Tensor, options: DrawOptions
) -> tuple[Tensor, Tensor]:
    """Draw pictures of a caption.

    Args:
        model: Networks of the pipeline.
        caption: Caption with K names.
        noise: Standard normal noise (B, C, h, w); each picture depends on its own noise only.
        options: Options of drawing.

    Returns:
        Pictures (B, 3, H, W) in [-1, 1], and attention (B, K, h', w') to the names over all steps.
    """
    grid = _grid(model, 1.0, options.steps)
    latents, maps = denoised(model, caption, noise, grid, options)
    return model.decode(latents), maps


@torch.no_grad()
def varied(
    model: TextToImage,
    caption: Caption,
    picture: Tensor,
    noise: Tensor,
    strength: float,
    options: DrawOptions,
) -> Tensor:
    """Draw variants of a picture: it is noised partway, and denoised under its caption.

    Meng et al., "SDEdit", ICLR 2022.

    Args:
        model: Networks of the pipeline.
        caption: Caption of the picture.
        picture: Picture (1, 1 or 3, H, W) in [-1, 1], of the model's size.
        noise: Standard normal noise (B, C, h, w), one for each variant.
        strength: Share of the forward process that the picture is noised to, in (0, 1]; a small one
            keeps its shapes.
        options: Options of drawing; ``steps`` is for the full forward process, and only the share
            ``strength`` of them is made.

    Returns:
        Variants (B, 3, H, W) in [-1, 1].

    Raises:
        UsageError: the strength is outside its range.
    """
    if not 0.0 < strength <= 1.0:
        raise UsageError("strength", f"must be in (0, 1], not {strength}", "Give for instance 0.3")
    grid = _grid(model, strength, max(1, round(strength * options.steps)))
    latents = model.encode(picture).expand(len(noise), -1, -1, -1)
    noised = model.noised(latents, noise, grid.timesteps[0])
    return model.decode(denoised(model, caption, noised, grid, options)[0])


def denoised(
    model: TextToImage,
    caption: Caption,
    x_t: Tensor,
    grid: TimeGrid,
    options: DrawOptions,
) -> tuple[Tensor, Tensor]:
    """Denoise latents along a time grid; give clean latents and the attention (B, K, h', w').

    A DDIM step starts from the state after excitation, not from the state before it.
    """
    nothing = model.caption([]).embedding
    half = len(x_t)
    maps = torch.zeros(())
    for number, (t, now, after) in enumerate(grid):
        if options.excite > 0.0 and t >= options.excite_until * model.process.n_timesteps:
            x_t = excited(model, caption, x_t, t, options)
        local = options.kind == "segmentation-free" and number >= options.switch * len(grid)
        away = caption.embedding if local else nothing
        embeddings = torch.cat([away.expand(half, -1, -1), caption.embedding.expand(half, -1, -1)])
        with recorded(model.unet, x_t, options.layers) as record:
            if local:
                with segmentation_free(model.unet, caption.places, options.scale):
                    eps = model.predict(torch.cat([x_t, x_t]), t, embeddings)
            else:
                eps = model.predict(torch.cat([x_t, x_t]), t, embeddings)
        found = word_maps(record, caption.places, options.coarsest)
        maps = maps + propagated(found, record, options.propagation)[half:] / len(grid)
        eps = eps[half:] + (options.guidance - 1.0) * (eps[half:] - eps[:half])
        x_t = move(x_t, x_0_from_eps(x_t, eps, now.a, now.s), now, after)
    return x_t, maps


def excited(
    model: TextToImage, caption: Caption, x_t: Tensor, t: int, options: DrawOptions
) -> Tensor:
    """Latents (B, C, h, w) after a step that raises the attention to the most neglected word.

    Chefer et al., "Attend-and-Excite: Attention-Based Semantic Guidance for Text-to-Image Diffusion
    Models", SIGGRAPH 2023. The gradient is divided by its root mean square, so that a step has the
    same size for every model.
    """
    with torch.enable_grad(), recorded(model.unet, x_t, options.layers) as record:
        moved = x_t.detach().requires_grad_()
        embeddings = caption.embedding.expand(len(moved), -1, -1)
        model.unet(moved, t, encoder_hidden_states=embeddings)
        neglect = 1.0 - peak(word_maps(record, caption.places, options.coarsest)).amin(dim=1)
        (gradient,) = torch.autograd.grad(SCALE * neglect.float().sum(), moved)
    gradient = gradient.float()  # its squares are too small for half precision
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    step = options.excite * neglect.detach()[:, None, None, None] * gradient / size
    return x_t - step.to(x_t)


class SegmentationFreeProcessor:
    """Cross-attention that suppresses the strongest word in the first half of a batch.

    At each place, the highest probability among the names' tokens is multiplied by -a (Azarian et
    al., 2024, section 3).

    Args:
        inner: Processor for the other half, and for self-attention.
        tokens: Positions of the tokens of all names.
        scale: Factor a.
    """

    def __init__(self, inner: Any, tokens: Sequence[int], scale: float) -> None:
        self.inner, self.tokens, self.scale = inner, list(tokens), scale

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """The output of the layer."""
        out: Tensor = self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        if encoder_hidden_states is None:
            return out
        half = len(hidden_states) // 2
        suppressed = self._suppressed(attn, hidden_states[:half], encoder_hidden_states[:half])
        return torch.cat([suppressed, out[half:]])

    def _suppressed(self, attn: Any, queries: Tensor, keys: Tensor) -> Tensor:
        query, key, value = (
            values.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for values in (attn.to_q(queries), attn.to_k(keys), attn.to_v(keys))
        )
        weights = (attn.scale * query @ key.transpose(-1, -2)).softmax(dim=-1)
        named = weights[..., self.tokens]
        strongest = named.mean(dim=1, keepdim=True).argmax(dim=-1, keepdim=True)
        factor = torch.ones_like(named).scatter(
            -1, strongest.expand(-1, attn.heads, -1, -1), -self.scale
        )
        weights = weights.clone()
        weights[..., self.tokens] = named * factor
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        out: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return out


@contextmanager
def segmentation_free(unet: Any, places: Sequence[Sequence[int]], scale: float) -> Iterator[None]:
    """Suppress the strongest word at each place in the first half of each batch, in a context."""
    before = dict(unet.attn_processors)
    tokens = [token for name in places for token in name]
    unet.set_attn_processor(
        {k: SegmentationFreeProcessor(p, tokens, scale) for k, p in before.items()}
    )
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def _grid(model: TextToImage, start: float, steps: int) -> TimeGrid:
    """Even time grid from a share of the forward process down to its last step above 0."""
    spaced = torch.linspace(model.timestep(start), 0, steps + 1)[:-1].round().int().tolist()
    return model.process.grid_at(list(dict.fromkeys(max(1, t) for t in spaced)))
