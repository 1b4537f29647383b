from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.drawing import DrawOptions
from medsegdiff.prompting.pairs import (
    PairOptions,
    class_of,
    draw_pairs,
    label_of,
    otsu_masks,
    otsu_threshold,
)
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.prompt_options import PromptOptions
from medsegdiff.prompting.variants import VariantOptions, keeps_structures, kept_variants
from medsegdiff.prompting.word_segmenter import Prompted

FINDING = PromptOptions(draws=2, levels=(0.2,), presence=-1.0)
LENIENT = PairOptions(DrawOptions(steps=2), FINDING, agreement=0.0, largest=1.0)


def test_pairs_are_kept_until_there_are_enough(tiny: TextToImage) -> None:
    captions = [["liver"], ["left kidney", "liver"], ["kidney"]]
    made = draw_pairs(tiny, captions, ["liver", "kidney"], 2, LENIENT)
    assert (len(made.kept), made.drawn) == (2, 2)
    assert set(made.kept[0].label.unique().tolist()) == {0, 1}
    assert set(made.kept[1].label.unique().tolist()) <= {0, 1, 2}
    assert made.kept[1].picture.shape == (1, 32, 32)


def test_the_class_that_was_kept_least_comes_next(tiny: TextToImage) -> None:
    captions = [["liver"], ["liver"], ["liver"], ["dark kidney"], ["left kidney"]]
    made = draw_pairs(tiny, captions, ["liver", "kidney"], 4, LENIENT)
    names = [pair.names[0] for pair in made.kept]
    assert names == ["liver", "dark kidney", "liver", "left kidney"]


def test_a_pair_depends_on_its_number_alone(tiny: TextToImage) -> None:
    both = draw_pairs(tiny, [["liver"], ["kidney"]], ["liver", "kidney"], 2, LENIENT)
    again = draw_pairs(tiny, [["kidney"], ["kidney"]], ["liver", "kidney"], 2, LENIENT)
    assert torch.equal(both.kept[1].picture, again.kept[1].picture)


def test_noisy_pairs_are_dropped_and_counted(tiny: TextToImage) -> None:
    strict = PairOptions(DrawOptions(steps=2), FINDING, agreement=1.01)
    made = draw_pairs(tiny, [["liver"]] * 3, ["liver"], 3, strict)
    assert made.kept == () and made.drawn == 3
    assert sum(made.dropped.values()) == 3


def test_pictures_of_what_no_caption_names_are_dropped(tiny: TextToImage) -> None:
    sees_all = dataclasses.replace(FINDING, attended=1e-6)  # tiny sees every word everywhere
    strict = dataclasses.replace(LENIENT, finding=sees_all, only_named=True)
    captions = [["liver"], ["left kidney", "liver"]]
    made = draw_pairs(tiny, captions, ["liver", "kidney"], 2, strict)
    assert [pair.names for pair in made.kept] == [("left kidney", "liver")]
    assert made.dropped["unnamed"] == 1
    sees_nothing = dataclasses.replace(strict, finding=dataclasses.replace(FINDING, attended=1.0))
    assert draw_pairs(tiny, captions, ["liver", "kidney"], 2, sees_nothing).dropped["absent"] == 2
    with pytest.raises(UsageError, match=r"^only_named"):
        dataclasses.replace(LENIENT, only_named=True)


def test_holes_are_the_things_that_enclose_them() -> None:
    label = torch.zeros(12, 12, dtype=torch.long)
    label[2:9, 2:9] = 2
    label[3:8, 3:8], label[4:7, 4:7] = 1, 0  # a hole in a thing that is inside of another one
    label[2, 4] = 0  # a gap, which is no hole
    label[8, 8] = 1
    label[10, 10:] = 2
    label[0, 10:] = 1  # of which nothing is enclosed
    probability = torch.nn.functional.one_hot(label, 3).movedim(-1, 0)[None].float()
    found = Prompted(probability, torch.ones(2, dtype=torch.bool))
    assert torch.equal(label_of(found), label)
    filled = label.clone()
    filled[4:7, 4:7] = 1
    assert torch.equal(label_of(found, fill_holes=True), filled)


def test_things_are_of_the_class_that_they_end_with() -> None:
    assert class_of("dark kidney", ["liver", "kidney"]) == 2
    with pytest.raises(UsageError, match="ends with no class"):
        class_of("midkidney", ["kidney"])


def test_the_threshold_is_otsus() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.05, 900), rng.normal(0.8, 0.05, 100)]).clip(0, 1)
    found = otsu_threshold(torch.tensor(values))

    def within(threshold: float) -> float:
        groups = values[values < threshold], values[values >= threshold]
        return sum(len(group) * float(group.var()) for group in groups if len(group))

    best = min(np.linspace(0.05, 0.95, 91), key=within)
    assert within(found) < 1.02 * within(float(best))


def test_where_masks_meet_the_stronger_one_has_it() -> None:
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, :5], maps[0, 1, 3:] = 1.0, 0.6
    maps[0, 1, 4] = 0.9
    masks = otsu_masks(maps)
    assert not (masks[0, 0] & masks[0, 1]).any()
    assert masks[0, 0, 0].all() and masks[0, 1, 7].all()


def test_variants_that_lose_a_structure_are_left_out(tiny: TextToImage) -> None:
    picture = torch.zeros(1, 32, 32)
    label = torch.zeros(32, 32, dtype=torch.uint8)
    label[10:20, 10:20] = 1
    picture[0, 10:20, 10:20] = 1.0
    moved = picture.roll(12, dims=2)
    assert keeps_structures(0.5 * picture + 0.1, picture, label, 0.9)
    assert not keeps_structures(moved, picture, label, 0.5)
    options = VariantOptions(count=2, strength=0.1, correlation=-1.0)
    kept = kept_variants(tiny, picture, label, ["liver"], options)
    assert len(kept) == 2 and kept[0].shape == (1, 32, 32)
    strict = VariantOptions(count=2, strength=1.0, correlation=0.999)
    assert kept_variants(tiny, picture, label, ["liver"], strict) == []
