from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medsegdiff.core.errors import InputError
from medsegdiff.prompting.grounded import (
    Example,
    GroundedSegmenter,
    TeachingOptions,
    load_head,
    save_head,
    teach,
)
from medsegdiff.prompting.pipeline import TextToImage

SIZE = (28, 36)


def examples() -> list[Example]:
    """Bright squares called liver, and nothing called kidney."""
    found = []
    for number in range(6):
        picture = -torch.ones(1, *SIZE)
        mask = torch.zeros(SIZE, dtype=torch.bool)
        mask[4 + number : 16 + number, 5 + 2 * number : 17 + 2 * number] = True
        picture[0, mask] = 1.0
        if number % 3 == 2:
            found.append(Example(picture, (("kidney",),), (torch.zeros(SIZE, dtype=torch.bool),)))
        else:
            found.append(Example(picture, (("left liver", "liver"),), (mask,)))
    return found


@pytest.mark.long
def test_a_head_learns_the_masks_it_is_shown_and_is_read_again(
    tiny: TextToImage, tmp_path: Path
) -> None:
    options = TeachingOptions(steps=240, batch=2, learning_rate=5e-3, level=0.02)
    head = teach(tiny, examples(), options)
    one = examples()[0]
    found = GroundedSegmenter(tiny, head, options)(one.picture, ["liver", "kidney"])
    assert found.probability.shape == (4, 3, *SIZE)
    torch.testing.assert_close(found.probability.sum(dim=1), torch.ones(4, *SIZE))
    mask = found.probability.mean(dim=0)[1] > 0.5
    shared = (mask & one.masks[0]).sum() / (mask | one.masks[0]).sum()
    assert shared > 0.5
    save_head(tmp_path / "head.pt", head, options, "tiny")
    again, taught = load_head(tmp_path / "head.pt")
    assert taught == options
    same = GroundedSegmenter(tiny, again, taught)(one.picture, ["liver", "kidney"])
    assert torch.equal(same.probability, found.probability)


def test_a_head_of_absolute_attention_is_read_as_such(tiny: TextToImage, tmp_path: Path) -> None:
    options = TeachingOptions(steps=1, batch=1, absolute=True, windows=(16,))
    head = teach(tiny, examples(), options)
    save_head(tmp_path / "head.pt", head, options, "tiny")
    again, taught = load_head(tmp_path / "head.pt")
    assert head.absolute and again.absolute and taught == options
    found = GroundedSegmenter(tiny, again, taught)(examples()[0].picture, ["left liver"])
    assert found.probability.shape == (4, 2, *SIZE)
    torch.testing.assert_close(found.probability.sum(dim=1), torch.ones(4, *SIZE))


def test_a_head_follows_its_seed_alone_and_leaves_the_callers_numbers(tiny: TextToImage) -> None:
    options = TeachingOptions(steps=2, batch=1)
    torch.manual_seed(3)
    expected = torch.rand(4)
    heads = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        heads.append(teach(tiny, examples(), options).state_dict())
        if seed == 3:
            assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_a_head_needs_something_to_learn_from(tiny: TextToImage) -> None:
    for given, steps in (([], 2), (examples(), 0)):
        with pytest.raises(ValueError, match="one example and one step"):
            teach(tiny, given, TeachingOptions(steps=steps))


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_head(tmp_path / "head.pt")
    (tmp_path / "head.pt").write_bytes(b"no")
    with pytest.raises(InputError, match="no grounding head"):
        load_head(tmp_path / "head.pt")
