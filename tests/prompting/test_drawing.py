from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.attention import recorded
from medsegdiff.prompting.drawing import DrawOptions, draw, excited, segmentation_free, varied
from medsegdiff.prompting.maps import peak, word_maps
from medsegdiff.prompting.pipeline import TextToImage, load_pipeline
from tests.tiny_pipeline import diffusers


def noise(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_picture_depends_on_its_own_noise_alone(tiny: TextToImage) -> None:
    caption = tiny.caption(["liver", "kidney"])
    options = DrawOptions(steps=3)
    both, maps = draw(tiny, caption, noise(), options)
    alone, own = draw(tiny, caption, noise()[1:], options)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(maps[1:], own, atol=1e-4, rtol=1e-4)
    assert both.shape == (2, 3, 32, 32) and maps.shape == (2, 2, 16, 16)


def test_without_guidance_the_caption_alone_is_followed(tiny: TextToImage) -> None:
    caption = tiny.caption(["liver"])
    scheduler = diffusers.DDIMScheduler.from_config(
        tiny.scheduler.config, set_alpha_to_one=True, clip_sample=False
    )
    scheduler.set_timesteps(3)  # steps of 333
    x = noise()
    for t in (999, 666, 333):
        step = scheduler.step(tiny.predict(x, t, caption.embedding), t, x)
        x = step.prev_sample if t > 333 else step.pred_original_sample
    drawn, _ = draw(tiny, caption, noise(), DrawOptions(steps=3, guidance=1.0))
    torch.testing.assert_close(drawn, tiny.decode(x), atol=1e-3, rtol=1e-3)


def test_guidance_weighs_the_caption_as_diffusers_do(tiny: TextToImage) -> None:
    """eps = eps_empty + w (eps_caption - eps_empty): a step of one at w is w times as far."""
    caption, empty = tiny.caption(["liver"]), tiny.caption([])
    with_caption, without = (tiny.predict(noise(), 999, c.embedding) for c in (caption, empty))
    guided = without + 2.5 * (with_caption - without)
    a, s = tiny.process.coefficients(torch.tensor([999]), guided)
    expected = tiny.decode((noise() - s * guided) / a)
    drawn, _ = draw(tiny, caption, noise(), DrawOptions(steps=1, guidance=2.5))
    torch.testing.assert_close(drawn, expected, atol=1e-3, rtol=1e-3)


def test_a_neglected_word_is_attended_to_more(tiny: TextToImage) -> None:
    caption = tiny.caption(["liver"])
    options = DrawOptions(excite=0.02)

    def least(x_t: torch.Tensor) -> torch.Tensor:
        with recorded(tiny.unet, x_t) as record:
            tiny.predict(x_t, 600, caption.embedding)
        return peak(word_maps(record, caption.places, options.coarsest)).amin(dim=1)

    moved = excited(tiny, caption, noise(), 600, options)
    assert (least(moved) > least(noise())).all()
    assert not moved.requires_grad
    step = (moved - noise()).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(step, options.excite * (1 - least(noise())), atol=1e-4, rtol=1e-3)
    alone = excited(tiny, caption, noise()[1:], 600, options)
    torch.testing.assert_close(moved[1:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_excited_latents_stay_in_half_precision(tiny_folder: Path, dtype: torch.dtype) -> None:
    half = load_pipeline(tiny_folder, torch.device("cpu"), dtype=dtype)
    x_t = noise().to(dtype)
    moved = excited(half, half.caption(["liver"]), x_t, 600, DrawOptions(excite=0.1))
    assert moved.dtype == dtype
    step = (moved - x_t).float().square().mean().sqrt()
    assert 0.05 < float(step) < 0.11


def test_words_are_excited_in_the_first_half_of_drawing(tiny: TextToImage) -> None:
    caption = tiny.caption(["liver"])
    drawn = {
        (excite, until): draw(tiny, caption, noise(), DrawOptions(steps=2, excite=excite,
                              excite_until=until))[0]
        for excite, until in ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0))
    }  # fmt: skip
    assert not torch.equal(drawn[0.5, 0.0], drawn[0.0, 0.0])
    assert torch.equal(drawn[0.5, 1.0], drawn[0.0, 0.0])


def test_attention_that_is_not_turned_leads_nowhere(tiny: TextToImage) -> None:
    """With a = -1 the strongest word keeps its weight, so guided away from is guided to."""
    caption = tiny.caption(["liver", "kidney"])
    still = DrawOptions(steps=3, guidance=4.0, kind="segmentation-free", scale=-1.0, switch=0.0)
    plain = DrawOptions(steps=3, guidance=1.0)
    pictures = [draw(tiny, caption, noise(), options)[0] for options in (still, plain)]
    torch.testing.assert_close(*pictures, atol=1e-3, rtol=1e-3)


def test_turning_away_spares_the_second_half_and_ends(tiny: TextToImage) -> None:
    caption = tiny.caption(["liver", "kidney"])
    before = tiny.unet.attn_processors
    x = torch.cat([noise(1), noise(1)])
    with segmentation_free(tiny.unet, caption.places, 1.0):
        eps = tiny.predict(x, 500, caption.embedding)
    plain = tiny.predict(x, 500, caption.embedding)
    torch.testing.assert_close(eps[1], plain[1])
    assert not torch.allclose(eps[0], plain[0])
    assert tiny.unet.attn_processors == before


def test_variants_stray_further_with_strength(tiny: TextToImage) -> None:
    caption = tiny.caption(["liver"])
    picture = torch.rand(1, 1, 32, 32) * 2 - 1
    plain = tiny.decode(tiny.encode(picture))
    options = DrawOptions(steps=20, guidance=1.0)
    strayed = [
        float((varied(tiny, caption, picture, noise(), strength, options) - plain).square().mean())
        for strength in (0.001, 0.3, 0.9)
    ]
    assert strayed[0] < 0.25 * min(strayed[1:])
    with pytest.raises(UsageError, match="strength"):
        varied(tiny, caption, picture, noise(), 0.0, options)


def test_unknown_guidance_is_refused() -> None:
    with pytest.raises(UsageError, match="segmentation-free"):
        DrawOptions(kind="none")  # type: ignore[arg-type]
