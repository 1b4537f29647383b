"""Child processes that are killed at random moments, and what is counted."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Tally:
    """Counts over all runs.

    Attributes:
        kills: Number of processes that were killed while they worked.
        lost: Number of kills after which something that was done could not be read any more.
        runs: Number of runs that were killed and went on until they ended.
        equal: Number of these whose result is that of the run that nothing killed.
    """

    kills: int = 0
    lost: int = 0
    runs: int = 0
    equal: int = 0


def forked(do: Callable[[], object]) -> int:
    """Call a function in a child process, which need not import anything again.

    Returns:
        Number of the process.
    """
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    try:
        do()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def ended(process: int, within: float | None = None) -> bool:
    """Wait for a child process.

    Args:
        process: Number of the process.
        within: Seconds to wait; None: until it has ended.

    Returns:
        Whether it has ended.
    """
    until = None if within is None else time.monotonic() + within
    while until is not None:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.002)
    os.waitpid(process, 0)
    return True


def killed_until_it_ends(
    do: Callable[[], object],
    took: float,
    moments: random.Random,
    tally: Tally,
    progress: Callable[[], int],
    is_intact: Callable[[], bool],
) -> None:
    """Start a job, kill it after a random time, and start it again, until it has ended.

    Args:
        do: Job, which goes on where it was.
        took: Seconds that it takes when nothing kills it.
        moments: Source of the times until a kill, which are up to that, and longer while the job
            does not get on.
        tally: Counts, which grow.
        progress: Function that says how many steps of the job are done.
        is_intact: Function that says whether all that is done can be read.
    """
    span, done = took, 0
    while True:
        process = forked(do)
        if ended(process, within=moments.uniform(0.0, 0.7 * span)):
            return
        os.kill(process, signal.SIGKILL)
        ended(process)
        tally.kills += 1
        tally.lost += not is_intact()
        gained, done = progress() > done, progress()
        span = took if gained else 1.3 * span  # a machine that has become slow
