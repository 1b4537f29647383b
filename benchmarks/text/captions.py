"""Captions of pictures: what is in view, how large, on which side, in which plane and contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import CLIPTokenizer

from benchmarks.text.described import DOMAINS, Described
from medsegdiff.phantoms import ATTRIBUTES

SIZES = {"tiny": 0.0, "small": 0.01, "medium": 0.03, "large": 0.1}
"""Word for a size -> least share of the picture."""
SENTENCE = "a scan with"
CONTEXT = ("head", "heart", "chest", "retina", "axial", "coronal", "sagittal", "t", "1", "2")
WORDS = tuple(
    dict.fromkeys(
        word
        for text in (SENTENCE, *(name for names in DOMAINS.values() for name in names),
                     *ATTRIBUTES, *SIZES, *CONTEXT)
        for word in text.split()
    )
)  # fmt: skip
"""All words that captions are made of."""
LENGTH = 40
"""Tokens of a caption, at most."""
SIDES = ("left", "right")
MOST = 3
"""Names that each picture of a mosaic is asked for, at most."""
Shares = tuple[float | None, ...]


@dataclass
class Text:
    """A caption in tokens.

    Attributes:
        ids: Tokens, the start's included and the end's not.
        places: Places of the tokens of each name.
        shares: Share that each name covers of each picture, 0 if it is absent, and None where that
            is not known; one picture, or those of a mosaic.
    """

    ids: list[int]
    places: list[tuple[int, ...]] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)


class Captions:
    """Makes captions of described pictures.

    Args:
        tokens: Tokenizer of the model.
    """

    def __init__(self, tokens: CLIPTokenizer) -> None:
        self._tokens, self._known = tokens, dict[str, list[int]]()

    def told(self, one: Described, rng: np.random.Generator) -> Text:
        """A caption that is true, as pictures are drawn from."""
        named = _sided(one, rng)
        texts: list[tuple[str, Shares]] = [
            (_sized(name, one, rng), (one.shares[name],)) for name in named if name in one.shares
        ]
        return self.text(_opening(one, rng), [texts[k] for k in rng.permutation(len(texts))])

    def asked(self, ones: Sequence[Described], rng: np.random.Generator) -> Text:
        """Names of which some are in view and some are not: what pictures are asked for.

        Args:
            ones: One picture, or those of a mosaic.
            rng: Source of all randomness.
        """
        chosen = [name for one in ones for name in _asked_for(one, rng)[: MOST if ones[1:] else 99]]
        if rng.random() < 0.3 or not chosen:
            others = [
                name for kind, names in DOMAINS.items() if kind != ones[0].kind for name in names
            ]
            chosen += [str(name) for name in rng.choice(others, 2, replace=False)]
        names = list(dict.fromkeys(chosen))
        opening = SENTENCE if rng.random() < 0.6 or ones[1:] else _opening(ones[0], rng)
        shuffled = [names[k] for k in rng.permutation(len(names))]
        return self.text(opening, [(n, tuple(share_of(n, one) for one in ones)) for n in shuffled])

    def text(self, opening: str, names: Sequence[tuple[str, Shares]]) -> Text:
        """An opening, and as many names as fit."""
        made = Text([self._tokens.bos_token_id, *self._ids(opening)])
        for number, (name, shares) in enumerate(names):
            comma, own = self._ids(",") if number else [], self._ids(name)
            if len(made.ids) + len(comma) + len(own) >= LENGTH:
                break
            made.ids += comma
            made.places.append(tuple(range(len(made.ids), len(made.ids) + len(own))))
            made.shares.append(shares)
            made.ids += own
        return made

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            found = self._tokens(text, add_special_tokens=False).input_ids if text else []
            self._known[text] = list(found)
        return self._known[text]


def share_of(text: str, one: Described) -> float | None:
    """Share of a picture that a name covers, with its attribute if it has one; None: not known."""
    first, _, rest = text.partition(" ")
    attribute, name = (first, rest) if first in ATTRIBUTES else ("", text)
    if name in one.unclear:
        return None
    share = one.shares.get(name, 0.0) if name in DOMAINS[one.kind] else 0.0
    if share and attribute and one.attributes.get(name, "") != attribute:
        return None
    return share


def _asked_for(one: Described, rng: np.random.Generator) -> list[str]:
    """Names that a picture of a kind is asked for, those in view first."""
    there, absent = [], []
    for name in _sided(one, rng):
        share = share_of(name, one)
        if share and rng.random() < 0.8:
            attribute = one.attributes.get(name, "") if rng.random() < 0.5 else ""
            there.append(f"{attribute} {name}".strip())
        elif share == 0.0 and rng.random() < 0.5:
            absent.append(name)
    return [str(name) for some in (there, absent) for name in rng.permutation(some)]


def _sided(one: Described, rng: np.random.Generator) -> list[str]:
    """Names that can be asked for, paired ones either by their sides or without them."""
    names = DOMAINS[one.kind]
    if one.kind != "head":
        return list(names)
    found = []
    for name in names:
        if name.startswith(SIDES):
            continue
        both = [f"{side} {name}" for side in SIDES]
        found += both if both[0] in names and rng.random() < 0.4 else [name]
    return found


def _opening(one: Described, rng: np.random.Generator) -> str:
    """How a caption begins."""
    draw = rng.random()
    if draw < 0.3:
        return ""
    return SENTENCE if draw < 0.6 else f"a {one.context} with".replace("a a", "a")


def _sized(name: str, one: Described, rng: np.random.Generator) -> str:
    """A name with its attribute, and sometimes how large it is."""
    text = f"{one.attributes.get(name, '')} {name}".strip()
    if one.kind == "generated" or rng.random() < 0.6:
        return text
    size = [word for word, least in SIZES.items() if one.shares[name] >= least][-1]
    return f"{size} {text}"
