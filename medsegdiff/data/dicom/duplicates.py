"""Remove copies of an image in a series. Different images of one identifier are kept."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.data.dicom.decoder import Decoder, decoding, stored_values
from medsegdiff.data.dicom.headers import DAMAGED, TAGS, open_dicom, text

Instance = tuple[Path, Any]
"""A file and its header."""


def without_copies(instances: Sequence[Instance]) -> list[Instance]:
    """The instances without copies of earlier ones.

    A copy has the same SOPInstanceUID and place, and the same bytes or at least the same pixels:
    archives rewrite names, and compress. Instances of one identifier that differ are kept, and are
    refused when the series is read.
    """
    kept: list[Instance] = []
    known: dict[str, list[Instance]] = defaultdict(list)
    with decoding() as decoder:
        for instance in instances:
            uid = text(instance[1], "SOPInstanceUID")
            if uid and any(_same(instance, other, decoder) for other in known[uid]):
                continue
            known[uid].append(instance)
            kept.append(instance)
    return kept


def _same(one: Instance, other: Instance, decoder: Decoder) -> bool:
    files = one[0], other[0]
    try:
        if any(one[1].get(tag) != other[1].get(tag) for tag in TAGS if tag != "PatientID"):
            return False
        first, second = (hashlib.sha256(file.read_bytes()).digest() for file in files)
        return first == second or _same_image(*files, decoder)
    except DAMAGED:
        return False


def _same_image(one: Path, other: Path, decoder: Decoder) -> bool:
    try:
        datasets = {file: open_dicom(file) for file in (one, other)}
        if len({_stored(dataset) for dataset in datasets.values()}) == 1:
            return True
        first, second = (stored_values(d, file, decoder) for file, d in datasets.items())
        return np.array_equal(first, second)
    except (RuntimeError, *DAMAGED):
        return False


def _stored(dataset: Any) -> tuple[Any, ...]:
    """What gives the same pixels if it is the same."""
    fields = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData")
    return (dataset.file_meta.TransferSyntaxUID, *map(dataset.get, fields))
