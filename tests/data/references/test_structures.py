"""Names, numbers and absences choose structures; what two classes claim follows the rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.data.references.structures import Structures

FILE = Path("a.dcm")


class Drawn:
    """Structures along one line of six voxels."""

    shape = (6, 1, 1)

    def __init__(self, **masks: str) -> None:
        self.masks = masks

    def present(self) -> list[tuple[int, str]]:
        return [(10 + i, name) for i, name in enumerate(self.masks)]

    def mask(self, number: int) -> NDArray[np.bool_]:
        drawn = list(self.masks.values())[number - 10]
        return np.array([c == "x" for c in drawn]).reshape(self.shape)


def labels(structures: Structures, file: Drawn) -> str:
    return "".join(str(v) for v in structures.label_map(file, FILE).ravel())


def test_names_are_compared_without_case_and_punctuation() -> None:
    file = Drawn(Lung_L="x.....", LUNG_R="...x..", heart="..x...")
    assert labels(Structures({1: ("Lung L",), 2: ("Heart",)}), file) == "102000"


def test_all_structures_of_a_class_belong_to_it_and_may_overlap() -> None:
    file = Drawn(Lung_L="xx....", LUNG_R=".xx...")
    assert labels(Structures({1: ("lung l", "lung r")}), file) == "111000"
    assert labels(Structures({1: (10, "lung r")}), file) == "111000"


def test_an_absent_structure_has_to_be_allowed() -> None:
    file = Drawn(liver="xx....")
    with pytest.raises(InputError, match=r"no structure 'tumour' for class 2; it has: 10 'liver'"):
        labels(Structures({1: ("liver",), 2: ("tumour",)}), file)
    assert labels(Structures({1: ("liver",), 2: ("tumour", None)}), file) == "110000"


def test_overlaps_are_refused_or_go_to_the_greatest() -> None:
    file = Drawn(tumour=".x....", liver="xxx...")
    names = {2: ("tumour",), 1: ("liver",)}
    with pytest.raises(InputError, match="'liver' and 'tumour' overlap in 1 voxels"):
        labels(Structures(names), file)
    assert labels(Structures(names, "greatest"), file) == "121000"


def test_a_structure_has_one_class() -> None:
    with pytest.raises(InputError, match="structure 10 is named for classes 1 and 2"):
        labels(Structures({1: ("liver",), 2: (10,)}), Drawn(liver="x....."))
