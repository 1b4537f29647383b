from __future__ import annotations

import dataclasses

import pytest
import torch

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.intensities import as_picture
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.prompt_options import Evidence, PromptOptions
from medsegdiff.prompting.refine import guided
from medsegdiff.prompting.word_segmenter import PromptSegmenter, WordEvidence, fit

FEW = PromptOptions(draws=2, levels=(0.2,), presence=-1.0, radius=1)


def test_every_draw_is_a_probability_on_the_pictures_own_grid(tiny: TextToImage) -> None:
    found = PromptSegmenter(tiny, FEW)(torch.rand(1, 40, 30) * 2 - 1, ["liver", "left kidney"])
    assert found.probability.shape == (2, 3, 40, 30)
    torch.testing.assert_close(found.probability.sum(dim=1), torch.ones(2, 40, 30))
    assert found.present.all()
    assert not torch.equal(found.probability[0], found.probability[1])


def test_the_same_seed_and_slice_give_the_same(tiny: TextToImage) -> None:
    picture = torch.rand(3, 32, 32) * 2 - 1
    segmenter = PromptSegmenter(tiny, FEW)
    first = segmenter(picture, ["liver"], 4).probability
    assert torch.equal(first, segmenter(picture, ["liver"], 4).probability)
    assert not torch.equal(first, segmenter(picture, ["liver"], 5).probability)


def test_words_that_do_not_help_are_nowhere(tiny: TextToImage) -> None:
    never = PromptOptions(draws=2, levels=(0.2,), presence=1e9)
    found = PromptSegmenter(tiny, never)(torch.rand(1, 32, 32), ["liver"])
    assert not found.present.any()
    assert (found.probability[:, 0] == 1.0).all() and (found.probability[:, 1:] == 0.0).all()


def test_the_peak_is_what_the_most_attentive_places_give_over_all_draws() -> None:
    attention = torch.zeros(2, 1, 16, 16)
    attention[0, 0, 3, :4] = 0.8  # four of 256 places, in one of two draws
    attention[1, 0, 3, :2] = 0.4
    evidence = WordEvidence(attention, torch.zeros(0), torch.zeros(0))
    torch.testing.assert_close(evidence.peak, torch.tensor([(2 * 0.6 + 2 * 0.4) / 4]))


def test_a_word_that_draws_too_little_attention_is_nowhere(tiny: TextToImage) -> None:
    picture, names = torch.rand(1, 32, 32), ["liver", "kidney"]
    segmenter = PromptSegmenter(tiny, FEW)
    latents = tiny.encode(picture[None])
    peak = segmenter.gather_evidence(latents, tiny.noise(FEW.draws, FEW.seed), names).peak
    between = dataclasses.replace(FEW, attended=float(peak.mean()))
    found = PromptSegmenter(tiny, between)(picture, names)
    assert found.present.tolist() == (peak > peak.mean()).tolist()
    absent = 1 + int(peak.argmin())
    assert (found.probability[:, absent] == 0.0).all()
    alone = PromptSegmenter(tiny, FEW)(picture, [names[int(peak.argmax())]]).probability
    assert torch.equal(found.probability[:, 1 + int(peak.argmax())], alone[:, 1])


def test_the_gain_of_a_word_is_what_naming_it_lowers_the_error_by(tiny: TextToImage) -> None:
    segmenter = PromptSegmenter(tiny, PromptOptions(draws=4, levels=(0.3,)))
    latents = torch.randn(1, 4, 16, 16)
    noise = torch.randn(4, 4, 16, 16)
    t = round(0.3 * 999)
    x_t = tiny.noised(latents, noise, t)

    def errors(*names: str) -> torch.Tensor:
        eps = tiny.predict(x_t, t, tiny.caption(names).embedding)
        return (eps - noise).square().mean(dim=(1, 2, 3))

    lowered = errors("kidney") - errors("liver", "kidney")
    expected = lowered.mean() / (lowered.std() / 2.0)
    gains = segmenter.gather_evidence(latents, noise, ["liver", "kidney"]).gain
    torch.testing.assert_close(gains[0], expected, atol=1e-3, rtol=1e-2)


def test_the_difference_is_what_leaving_a_word_out_changes(tiny: TextToImage) -> None:
    latents, noise = torch.randn(1, 4, 16, 16), torch.randn(2, 4, 16, 16)
    t = round(0.3 * 999)
    x_t = tiny.noised(latents, noise, t)
    both, alone = (
        tiny.predict(x_t, t, tiny.caption(names).embedding)
        for names in (["liver", "kidney"], ["kidney"])
    )
    squared = (both - alone).square().mean(dim=1)
    expected = (squared / squared.mean(dim=(1, 2), keepdim=True)).sqrt()
    segmenter = PromptSegmenter(tiny, PromptOptions(draws=2, levels=(0.3,)))
    found = segmenter.gather_evidence(latents, noise, ["liver", "kidney"])
    torch.testing.assert_close(found.difference[:, 0], expected, atol=1e-3, rtol=1e-3)
    assert (
        segmenter.gather_evidence(latents, noise, ["liver"], compares=False).difference.numel() == 0
    )


@pytest.mark.parametrize("evidence", ["attention", "difference", "both"])
def test_each_kind_of_evidence_gives_probabilities(tiny: TextToImage, evidence: Evidence) -> None:
    options = PromptOptions(draws=2, levels=(0.2,), presence=-1.0, evidence=evidence)
    found = PromptSegmenter(tiny, options)(torch.rand(1, 32, 32), ["liver", "kidney"])
    torch.testing.assert_close(found.probability.sum(dim=1), torch.ones(2, 32, 32))


def test_a_picture_fits_its_frame_with_its_shape_kept() -> None:
    picture = torch.arange(200.0).view(1, 1, 10, 20)
    framed, (rows, columns) = fit(picture, (32, 32))
    assert framed.shape == (1, 1, 32, 32)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (16, 32)
    assert torch.equal(framed[0, 0, 0], framed[0, 0, rows.start])


def test_nothing_to_find_is_refused(tiny: TextToImage) -> None:
    with pytest.raises(UsageError, match="missing"):
        PromptSegmenter(tiny, FEW)(torch.rand(1, 32, 32), [])
    with pytest.raises(UsageError, match="attention, difference or both"):
        PromptOptions(evidence="mood")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="between 0 and 1"):
        PromptOptions(levels=(1.5,))
    with pytest.raises(UsageError, match=r"^attended.*from 0 to 1"):
        PromptOptions(attended=2.0)


def test_guided_maps_follow_the_images_edges() -> None:
    pytest.importorskip("kornia")
    image = torch.ones(1, 1, 16, 16)
    image[..., 8:] = -1.0
    soft = torch.linspace(1, 0, 16).expand(1, 1, 16, 16)
    found = guided(soft, image, 3)
    step = found[0, 0, 8, 7] - found[0, 0, 8, 8]
    assert step > 2 * (soft[0, 0, 8, 7] - soft[0, 0, 8, 8])
    assert guided(soft, image, 0) is soft


def test_intensities_become_a_picture_whatever_their_scale() -> None:
    values = torch.rand(1, 20, 20) * 1000 + 500
    picture = as_picture(values)
    assert picture.min() == -1.0 and picture.max() == 1.0
    torch.testing.assert_close(picture, as_picture(values * 3 - 7), atol=1e-4, rtol=1e-4)
    assert len(as_picture(torch.rand(4, 8, 8))) == 1 and len(as_picture(torch.rand(3, 8, 8))) == 3
