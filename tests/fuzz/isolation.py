"""Tries inputs in a child process, so that a crash, a hang or too much memory is a finding."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from medsegdiff.core.errors import InputError

LIMIT = 20.0
"""Seconds after which an input counts as a hang."""
MEMORY = 2**32
"""Bytes that an input may take beside what the process has."""

Attempt = Callable[[np.random.Generator, Path], bool]
"""Tries one input, in a folder of its own: True if it was accepted. ``InputError`` is a refusal,
``AssertionError`` an input that was accepted and read wrongly, any other exception a fault."""

_CONTEXT = multiprocessing.get_context("fork")


@dataclass
class Tally:
    """What became of inputs.

    Attributes:
        counts: Number of inputs ``accepted``, ``refused``, and of ``exceptions`` that are not
            ours, ``crashes``, ``hangs``, ``silent_changes``.
        findings: Seed of each input with a fault, and what it was.
    """

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seed: int, outcome: str, text: str = "") -> None:
        """Count one input."""
        self.counts[outcome] += 1
        if outcome not in ("accepted", "refused"):
            self.findings.append((seed, f"{outcome}: {text}"))


def try_inputs(
    attempt: Attempt, seeds: Iterable[int], limit: float = LIMIT, until: float = float("inf")
) -> Tally:
    """Try an input of each seed.

    Args:
        attempt: Function that makes an input and tries it.
        seeds: Seeds of the inputs.
        limit: Seconds after which an input counts as a hang.
        until: Time (``time.monotonic``) after which no further input begins.
    """
    tally, waiting = Tally(), list(seeds)[::-1]
    while waiting and time.monotonic() < until:
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        child = _CONTEXT.Process(target=_work, args=(attempt, waiting[::-1], sender, until))
        child.start()
        sender.close()
        try:
            while waiting:
                if not receiver.poll(limit):
                    tally.add(waiting.pop(), "hangs", f"no end within {limit} s")
                    break
                outcome, text = receiver.recv()
                if outcome == "over":
                    return tally
                tally.add(waiting.pop(), outcome, text)
        except EOFError:
            child.join()
            tally.add(waiting.pop(), "crashes", f"the process ended with {child.exitcode}")
        finally:
            child.kill()
            child.join()
            receiver.close()
    return tally


def _work(attempt: Attempt, seeds: list[int], sender: Connection, until: float) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C complain there
    for seed in seeds:
        if time.monotonic() > until:
            sender.send(("over", ""))
            return
        sender.send(_outcome(attempt, seed))
    time.sleep(60)  # until the parent has read, and ends it


def _outcome(attempt: Attempt, seed: int) -> tuple[str, str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            accepted = attempt(np.random.default_rng(seed), Path(folder))
        except InputError as error:
            try:  # the message must be one, too
                return "refused", str(error)
            except Exception:
                return "exceptions", traceback.format_exc()
        except AssertionError:
            return "silent_changes", traceback.format_exc()
        except Exception:
            return "exceptions", traceback.format_exc()
    return ("accepted" if accepted else "refused"), ""
