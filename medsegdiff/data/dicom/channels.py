"""Several series of a study as the channels of one case, chosen by their descriptions."""

from __future__ import annotations

from collections.abc import Sequence

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom.series import Series


def by_study(series: Sequence[Series]) -> list[list[Series]]:
    """The series of each study, in the order in which the studies first appear."""
    studies: dict[str, list[Series]] = {}
    for one in series:
        studies.setdefault(one.study_uid, []).append(one)
    return list(studies.values())


def choose_channels(study: Sequence[Series], words: Sequence[str], name: str) -> tuple[Series, ...]:
    """The series of a study that fit the words, in the words' order.

    A word fits the series whose description (and part, if it has one) is the word, or else contains
    it. Upper and lower case are not distinguished.

    Args:
        study: All series of one study.
        words: Word for each channel.
        name: Name of the study in errors.

    Raises:
        InputError: a word fits no series or several, or two words fit the same one.
    """
    chosen = tuple(_matching(study, word, name) for word in words)
    if len(set(map(id, chosen))) < len(words):
        rule = f"two of the channels {', '.join(words)} fit the same series"
        raise InputError(name, rule, f"Name each by a word of its own; {_available(study)}")
    return chosen


def _matching(study: Sequence[Series], word: str, name: str) -> Series:
    wanted = word.strip().casefold()
    titles = [(one, {one.description.casefold(), one.title.casefold()}) for one in study]
    found = [one for one, known in titles if wanted in known]
    found = found or [one for one, known in titles if any(wanted in title for title in known)]
    if len(found) != 1:
        rule = f"the channel {word!r} has to fit one series, but fits {len(found) or 'none'}"
        raise InputError(name, rule, f"Correct the word; {_available(study)}")
    return found[0]


def _available(study: Sequence[Series]) -> str:
    known = (f"{'?' if s.number is None else s.number} ({s.title})" for s in study)
    return f"there is {', '.join(known)}"
