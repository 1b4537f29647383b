from __future__ import annotations

import torch

from medsegdiff.training.seeding import seeded


def test_numbers_follow_the_seed_within_and_go_on_as_before() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(7, torch.device("cpu")):
        first = torch.rand(2)
    assert torch.equal(torch.rand(3), expected)
    with seeded(7, torch.device("cpu")):
        assert torch.equal(torch.rand(2), first)
