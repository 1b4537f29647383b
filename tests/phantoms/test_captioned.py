from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.images import read_image
from medsegdiff.data.manifest import load_manifest
from medsegdiff.phantoms.captioned import (
    LESION,
    NAMES,
    UNSEEN_COMBINATIONS,
    UNSEEN_ORGAN,
    captioned_image,
    texts_of,
    write_captioned,
)

DRAWN = [captioned_image(3, number) for number in range(80)]


def test_a_caption_names_exactly_what_is_there() -> None:
    for one in DRAWN:
        named = one.caption.removeprefix("a scan with ").split(", ")
        assert named == texts_of(one.things)
        classes = {1 + NAMES.index(thing.name) for thing in one.things}
        assert classes == set(np.unique(one.label)) - {0}
    assert len({len(one.things) for one in DRAWN}) >= 4


def test_things_do_not_overlap_and_each_is_named_once() -> None:
    for one in DRAWN:
        assert np.sum([thing.mask for thing in one.things], axis=0).max() == 1
        assert len({thing.name for thing in one.things}) == len(one.things)


def test_all_things_occur_and_lesions_are_small() -> None:
    things = [thing for one in DRAWN for thing in one.things]
    sizes = {name: [t.mask.sum() for t in things if t.name == name] for name in NAMES}
    assert all(sizes.values())
    assert max(sizes[LESION]) < 50 < min(np.mean(sizes[name]) for name in NAMES if name != LESION)


def test_the_same_numbers_give_the_same_image() -> None:
    assert np.array_equal(captioned_image(3, 5).image, DRAWN[5].image)
    assert not np.array_equal(captioned_image(4, 5).image, DRAWN[5].image)


def test_attributes_can_be_seen() -> None:
    level = {
        attribute: np.mean(
            [o.image[t.mask].mean() for o in DRAWN for t in o.things
             if t.name != LESION and t.attribute == attribute]
        )
        for attribute in ("dark", "", "bright")
    }  # fmt: skip
    assert level["dark"] < level[""] - 0.1 < level["bright"] - 0.3


def test_what_is_unseen_can_be_left_out() -> None:
    kept = [captioned_image(3, number, without_unseen=True) for number in range(80)]
    said = {(thing.attribute, thing.name) for one in kept for thing in one.things}
    assert UNSEEN_ORGAN not in {name for _, name in said}
    assert said.isdisjoint(UNSEEN_COMBINATIONS)
    assert any(thing.unseen for one in DRAWN for thing in one.things)


def test_the_files_are_a_data_set_that_shows_the_image_upright(tmp_path: Path) -> None:
    manifest = load_manifest(write_captioned(tmp_path, 3, seed=3))
    assert list(manifest.labels.values()) == ["background", *NAMES]
    image, _ = read_image(manifest.cases[1].images[0])
    assert np.allclose(image.T, DRAWN[1].image)  # the first axis runs from left to right
    with pytest.raises(InputError, match="one case"):
        write_captioned(tmp_path, 0)
