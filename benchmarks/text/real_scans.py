"""Words in real scans: how well they are found, and what absent ones are given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.text.real_volumes import RealScan
from medsegdiff.prompting import Prompted, label_of

FindWords = Callable[[Tensor, Sequence[str], int], Prompted]
GIVEN = 0.002
"""Share of a slice that an absent word has to be given for a false positive."""


class Found:
    """Counts of pixels by scan and name, and of absent words."""

    def __init__(self) -> None:
        self.both: dict[tuple[str, str], float] = {}
        self.either: dict[tuple[str, str], float] = {}
        self.absent: dict[str, list[bool]] = {}
        self.seconds: list[float] = []

    def add(self, scan: str, name: str, mask: Tensor, truth: Tensor) -> None:
        """Count a word's mask (H, W) in a slice."""
        key = (scan, name)
        self.both[key] = self.both.get(key, 0.0) + float((mask & truth).sum())
        self.either[key] = self.either.get(key, 0.0) + float((mask | truth).sum())
        if not truth.any():
            self.absent.setdefault(name, []).append(float(mask.float().mean()) > GIVEN)

    def by_name(self) -> dict[str, float]:
        """Mean over scans of the intersection over union of all slices of a scan."""
        ratios: dict[str, list[float]] = {}
        for (scan, name), union in self.either.items():
            if (scan, name) in self.both and union:
                ratios.setdefault(name, []).append(self.both[scan, name] / union)
        return {name: sum(found) / len(found) for name, found in ratios.items()}

    def false_positives(self) -> float:
        """Share of pairs of a slice and a word that is not in it which are given a mask."""
        all_ = [one for found in self.absent.values() for one in found]
        return sum(all_) / max(1, len(all_))


def look(
    segmenter: Any,
    scans: Iterable[RealScan],
    foreign: Sequence[str] = (),
    found: Found | None = None,
) -> Found:
    """Ask every slice for all names of its scan, and for foreign words that are never there.

    Args:
        segmenter: Function (picture, names, number) -> words found.
        scans: Scans to look at.
        foreign: Further words, which no scan has.
        found: Counts to go on with.
    """
    found = found or Found()
    for scan in scans:
        names = [*scan.masks, *foreign]
        for number, picture in enumerate(scan.pictures):
            started = time.process_time()
            label = label_of(segmenter(picture, names, number))
            found.seconds.append(time.process_time() - started)
            nothing = torch.zeros_like(label, dtype=torch.bool)
            for k, name in enumerate(names, start=1):
                truth = scan.masks[name][number] if name in scan.masks else nothing
                if name in scan.masks:
                    found.add(scan.name, name, label == k, truth)
                else:
                    given = float((label == k).float().mean()) > GIVEN
                    found.absent.setdefault(name, []).append(given)
    return found


def figures(found: Found, names: Sequence[str] | None = None) -> dict[str, Any]:
    """What was found, by name."""
    by_name = found.by_name()
    kept = {name: value for name, value in by_name.items() if names is None or name in names}
    return {
        "miou": sum(kept.values()) / max(1, len(kept)),
        "by_name": by_name,
        "absent_false_positive_rate": found.false_positives(),
        "absent_by_name": {name: sum(v) / len(v) for name, v in found.absent.items()},
        "absent_pairs": sum(len(v) for v in found.absent.values()),
        "seconds_a_slice": sum(found.seconds) / max(1, len(found.seconds)),
    }
