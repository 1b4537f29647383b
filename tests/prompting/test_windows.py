from __future__ import annotations

import itertools

import pytest
import torch

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.attention import AttentionRecord
from medsegdiff.prompting.maps import token_sums
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.prompt_options import PromptOptions
from medsegdiff.prompting.windows import spans, windowed
from medsegdiff.prompting.word_segmenter import PromptSegmenter, with_none

ABSOLUTE = PromptOptions(draws=2, levels=(0.2,), presence=-1.0, radius=0, absolute=True)


def itself(part: torch.Tensor) -> torch.Tensor:
    return part[None]


@pytest.mark.parametrize("sides", [(), (0,), (16,), (7, 16), (300,)])
def test_windows_that_see_the_same_give_the_same(sides: tuple[int, ...]) -> None:
    picture = torch.rand(1, 33, 50)
    torch.testing.assert_close(windowed(picture, sides, itself)[0], picture)


@pytest.mark.parametrize(("length", "side"), [(50, 16), (33, 32), (16, 16), (9, 4)])
def test_windows_overlap_by_half_and_leave_nothing_out(length: int, side: int) -> None:
    found = list(spans(length, side))
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(end - start == side for start, end in found)
    steps = [after[0] - before[0] for before, after in itertools.pairwise(found)]
    assert all(step <= side / 2 + 1 for step in steps)


def test_a_window_counts_most_in_its_middle() -> None:
    seen: list[int] = []

    def number(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(seen))
        return torch.full_like(part[None], float(seen[-1]))

    found = windowed(torch.zeros(1, 8, 16), (8,), number)[0, 0, 4]
    assert found[0] == 0.0 and found[-1] == 2.0
    assert (found.diff() >= 0).all() and found[8] == pytest.approx(1.0, abs=0.2)


def test_a_names_attention_is_the_sum_over_its_tokens() -> None:
    cross = torch.arange(12.0).view(1, 4, 3)
    record = AttentionRecord((2, 2))
    record.add(cross, is_cross=True)
    sums = token_sums(record, [(0,), (1, 2)])
    torch.testing.assert_close(sums[0, 1].flatten(), cross[0, :, 1:].sum(dim=1))


def test_what_words_leave_is_of_none() -> None:
    found = with_none(torch.tensor([[0.3, 0.2], [0.9, 0.6]]).view(2, 2, 1, 1))
    expected = torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.6, 0.4]])
    torch.testing.assert_close(found[..., 0, 0], expected)
    even = with_none(torch.tensor([[0.3], [0.2]]).view(2, 1, 1, 1), 0.3)
    assert even[0, 1] == pytest.approx(0.5) and even[1, 1] < 0.5
    torch.testing.assert_close(even.sum(dim=1), torch.ones(2, 1, 1))


def test_absolute_maps_are_probabilities_on_the_pictures_grid(tiny: TextToImage) -> None:
    picture = torch.rand(1, 40, 30) * 2 - 1
    names = ["liver", "left kidney"]
    for windows in ((), (16,)):
        options = PromptOptions(**{**vars(ABSOLUTE), "windows": windows})
        found = PromptSegmenter(tiny, options)(picture, names)
        assert found.probability.shape == (2, 3, 40, 30) and found.present.all()
        torch.testing.assert_close(found.probability.sum(dim=1), torch.ones(2, 40, 30))
    never = PromptOptions(**{**vars(ABSOLUTE), "attended": 1.0})
    nowhere = PromptSegmenter(tiny, never)(picture, names)
    assert not nowhere.present.any() and (nowhere.probability[:, 0] == 1.0).all()


def test_windows_are_of_absolute_maps() -> None:
    with pytest.raises(UsageError, match="windows"):
        PromptOptions(windows=(16,))
