"""One DICOM series, or a part of one that is a volume of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medsegdiff.core.types import Uneven


@dataclass(frozen=True)
class Series:
    """The images of one DICOM series, in the order of their file names.

    Attributes:
        files: Paths of the files, one for each slice, or enhanced files of many slices.
        study_uid: StudyInstanceUID.
        uid: SeriesInstanceUID.
        number: SeriesNumber; None where the header lacks it.
        description: SeriesDescription, or empty.
        modality: Modality, such as MR or CT.
        patient_id: PatientID; never to be written or shown.
        source: Name of the user's input. Errors name it and the number, and neither the files nor
            their folders, which may be called after the patient.
        part: Name of one of several acquisitions in a series, such as ``TE 4.6 ms``; empty if the
            series is whole.
        frames: Numbers, from 0, of the part's frames in each file; empty: all.
        uneven: Treatment of slices that are not evenly spaced.
        damage: Sentence on files that belong to it and cannot be read; empty: it is whole.
        notes: Sentences on what was unusual in finding it.
    """

    files: tuple[Path, ...]
    study_uid: str
    uid: str
    number: int | None
    description: str
    modality: str
    patient_id: str = field(repr=False)
    source: str
    part: str = ""
    frames: tuple[tuple[int, ...], ...] = ()
    uneven: Uneven = "refuse"
    damage: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = f"{self.source}, series {'?' if self.number is None else self.number}"
        return f"{name}, {self.part}" if self.part else name

    @property
    def title(self) -> str:
        """Description and part, which distinguish the series from others of its study."""
        return " ".join(filter(None, (self.description, self.part)))


def apart(what: str) -> str:
    """The remedy for images of one series that are not one volume.

    Args:
        what: Name of what belongs together.
    """
    return f"Put the images of each {what} in a folder of its own, and give these one by one"


def case_id(series: Series | Sequence[Series], salt: str) -> str:
    """Name of a case: salted hash of its identifiers, number of the (first) series, and its part.

    The same series and salt always give the same name. Other series, or the same series as channels
    of another case, give other names. It holds nothing of the patient. Number 0 means none.

    Args:
        series: Series of the case, one for each channel.
        salt: Secret text that is hashed with the identifiers.
    """
    several = [series] if isinstance(series, Series) else list(series)
    first = several[0]
    identity = [salt, first.study_uid]
    for one in several:
        identity += [one.uid, one.part] if one.part else [one.uid]
    digest = hashlib.sha256("/".join(identity).encode()).hexdigest()
    name = f"{digest[:12]}_{first.number if first.number is not None else 0}"
    part = re.sub(r"[^a-z0-9]+", "-", first.part.lower()).strip("-")
    return f"{name}_{part}" if part else name
