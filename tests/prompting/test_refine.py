from __future__ import annotations

import pytest
import torch

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.prompt_options import PromptOptions
from medsegdiff.prompting.refine import conditional_field

pytest.importorskip("kornia", reason="needs the extra text")


def test_one_iteration_is_the_mean_field_of_the_appearance_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 15, 15, generator=generator)
    probability = torch.rand(1, 3, 15, 15, generator=generator).softmax(dim=1)
    found = conditional_field(probability, image, 2.0, colour=0.4, distance=1.0, iterations=1)
    rows = torch.arange(5.0) - 2.0
    space = torch.exp(-0.5 * (rows[:, None] ** 2 + rows[None] ** 2))
    near = image[0, 0, 5:10, 5:10]
    kernel = space * torch.exp(-0.5 * ((near - near[2, 2]) / 0.4) ** 2)
    message = (kernel / kernel.sum() * probability[0, :, 5:10, 5:10]).sum(dim=(1, 2))
    expected = (probability[0, :, 7, 7].log() + 2.0 * message).softmax(dim=0)
    torch.testing.assert_close(found[0, :, 7, 7], expected, atol=1e-4, rtol=1e-3)


def test_a_field_mends_holes_and_stops_at_edges() -> None:
    image = -torch.ones(1, 1, 24, 24)
    image[..., 6:18, 6:18] = 0.5
    truth = image[0, 0] > 0
    word = torch.where(truth, 0.8, 0.1)
    word[10:12, 10:12] = 0.3  # a hole
    word[2, 2] = 0.7  # a speck
    word[6:18, 18] = 0.45  # nearly over the edge
    probability = torch.stack([1.0 - word, word])[None].repeat(2, 1, 1, 1)
    found = conditional_field(probability, image, 8.0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 24, 24))
    assert torch.equal(found[0, 1] > 0.5, truth) and torch.equal(found[0], found[1])
    assert conditional_field(probability, image, 0.0) is probability


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^crf"):
        PromptOptions(crf=-1.0)
