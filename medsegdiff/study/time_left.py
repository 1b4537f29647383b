"""How far a study is: a line before each stage, with an estimate of the time left."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from medsegdiff.study.stage_record import Stage, StageRecord

logger = logging.getLogger(__name__)


class Pace:
    """Does stages one after the other, and says how far the study is.

    Args:
        record: Record of the study.
        total: Number of all stages.
        hours: Hours of all trainings together, if they are known.
    """

    def __init__(self, record: StageRecord, total: int, hours: float | None) -> None:
        self.record, self.total, self.hours = record, total, hours
        self.number = 0

    def run(self, stages: Sequence[Stage]) -> None:
        """Do the stages that are not done."""
        for place, stage in enumerate(stages):
            self.number += 1
            left = seconds_left(stages, place, self.record, self.hours)
            about = f", about {in_words(left)} left" if left else ""
            title = f"stage {self.number} of {self.total}: {stage.name}"
            if not self.record.run(stage, partial(logger.info, "%s%s", title, about)):
                logger.info("%s is done already", title)


def seconds_left(
    stages: Sequence[Stage], place: int, record: StageRecord, hours: float | None
) -> float:
    """Time that the stages from ``place`` on take, judged by those of their kind; 0: not known.

    Args:
        stages: Stages in order.
        place: Number of stages that are done.
        record: Record of the study.
        hours: Hours of all stages of the kind ``train`` together, or None.
    """
    total = 0.0
    for kind in {stage.kind for stage in stages if stage.kind}:
        alike = [stage for stage in stages if stage.kind == kind]
        open_ones = [s for s in stages[place:] if s.kind == kind and not _done(record, s)]
        taken = [record.seconds(s.name) for s in alike if _done(record, s)]
        if taken:
            total += len(open_ones) * sum(taken) / len(taken)
        elif kind == "train" and hours is not None:
            total += len(open_ones) * 3600.0 * hours / len(alike)
    return total


def _done(record: StageRecord, stage: Stage) -> bool:
    return bool(record.stages.get(stage.name, {}).get("done"))


def in_words(seconds: float) -> str:
    """A time in words.

    >>> in_words(40), in_words(130), in_words(7500)
    ('40 s', '2 min', '2 h 5 min')
    """
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{round(seconds)} s"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"
