"""Damage of inputs at random: of bytes, and of values in JSON."""

from __future__ import annotations

import copy
import struct
from typing import Any

import numpy as np

_NUMBERS = [
    *(struct.pack("<b", n) for n in (0, 1, -1, -128, 127)),
    *(struct.pack(f"{end}h", n) for end in "<>" for n in (0, 1, -1, -32768, 32767, 256)),
    *(struct.pack(f"{end}i", n) for end in "<>" for n in (0, 1, -1, -(2**31), 2**31 - 1, 65536)),
    *(struct.pack(f"{end}q", n) for end in "<>" for n in (0, -1, 2**63 - 1, 2**32)),
    *(
        struct.pack(f"{end}{kind}", n)
        for end in "<>"
        for kind in "fd"
        for n in (0.0, -0.0, 1e-30, 1e30, float("nan"), float("inf"), -1.0)
    ),
]
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 255, 256, 10**30, -(2**63), 0.5, 1e308, float("nan"),
    float("inf"), "", " ", "0", "1", "-1", "x", "\0", "..", ".", "../x", "a/b", "ü\ud7ff",
    "x" * 5000, "9" * 5000, "$1/0", "@x", "%x", "None", [], {}, [[]], [None], {"": None},
    {"0": "x"}, [0, 0], ["a", "a"],
]  # fmt: skip


def damaged(data: bytes, rng: np.random.Generator, within: int | None = None) -> bytes:
    """The bytes with one to four places changed.

    Args:
        data: Bytes of a valid input.
        rng: Source of what is done where.
        within: Number of first bytes, such as a header's, that most changes are made in.
    """
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not found:
            break
        end = len(found) if within is None or rng.random() < 0.2 else min(within, len(found))
        at = int(rng.integers(end))
        length = int(2 ** rng.uniform(0, np.log2(end + 1)))
        match int(rng.integers(8)):
            case 0 | 1:
                found[at] ^= 1 << int(rng.integers(8))
            case 2 | 3 | 4:
                number = _NUMBERS[int(rng.integers(len(_NUMBERS)))]
                found[at : at + len(number)] = number
            case 5:
                del found[at : at + length]
            case 6:
                found[at:at] = found[at : at + length]
            case 7:
                found[at : at + length] = rng.bytes(min(length, 64))
    return bytes(found if rng.random() < 0.9 else found[: int(rng.integers(len(found) + 1))])


def odd_value(rng: np.random.Generator) -> Any:
    """A value that is seldom expected."""
    return copy.deepcopy(_VALUES[int(rng.integers(len(_VALUES)))])


def damaged_json(content: Any, rng: np.random.Generator) -> Any:
    """A copy of JSON content with one to three values replaced, removed, doubled or exchanged."""
    found = copy.deepcopy(content)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(found))
        if not places:
            return odd_value(rng)
        holder, key = places[int(rng.integers(len(places)))]
        match int(rng.integers(6)):
            case 0 | 1 | 2:
                holder[key] = odd_value(rng)
            case 3:
                del holder[key]
            case 4 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 4:
                holder[str(odd_value(rng))] = holder.pop(key)
            case 5:
                other, name = places[int(rng.integers(len(places)))]
                holder[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(holder[key])
    return found


def _places(content: Any) -> Any:
    """All (container, key) of nested dictionaries and lists."""
    if isinstance(content, dict | list):
        keys = list(content) if isinstance(content, dict) else range(len(content))
        for key in keys:
            yield content, key
            yield from _places(content[key])
