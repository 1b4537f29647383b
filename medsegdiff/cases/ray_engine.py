"""Cases as tasks on the machines of a Ray cluster, or on the cores of this one."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cases.one_by_one import Do, Outcome, attempted
from medsegdiff.core.errors import InputError, UsageError, needs_extra
from medsegdiff.data.case_input import CaseInput

logger = logging.getLogger(__name__)

TRIES = 3
"""Workers that a case may lose before it counts as failed."""

REACHED_WITHIN = 10.0
"""Seconds within which a cluster has to answer."""


@dataclass(frozen=True)
class RayEngine:
    """Does cases on actors of Ray that each hold the bundle's network; see ``one_by_one``.

    A worker is given its next case when it has ended the one before, so that none waits in a queue
    of its own. The cases of a worker that is lost are given to others.

    Attributes:
        bundle: Bundle with the configuration ``configs/inference``.
        changes: Keys of the configuration -> values, as the segmenter of this process has them.
        workers: Number of workers; None: one for each GPU of the cluster, or for each core where
            there are none or the device is none.
        address: Address of the cluster, ``host:port`` or ``auto``; None: a cluster of this machine
            alone, which ends with the program.
    """

    bundle: Bundle
    changes: Mapping[str, Any]
    workers: int | None = None
    address: str | None = None

    def __call__(self, cases: Sequence[CaseInput], do: Do) -> Iterator[Outcome]:
        """Does all cases, and yields each with its error as it ends.

        Args:
            cases: Cases to do; their files must be there on every machine, by the same names.
            do: Not called: each worker has a segmenter of its own.

        Raises:
            InputError: the package ray is missing, the cluster cannot be reached, or no worker can
                be started.
        """
        with needs_extra("--engine ray", "ray", "cohort"):
            import ray
        _join(ray, self.address)
        try:
            yield from _Pool(ray, self, len(cases)).outcomes(cases)
        finally:
            ray.shutdown()


class _Worker:
    """One process that holds a segmenter; an actor of Ray."""

    def __init__(self, bundle: Bundle, changes: Mapping[str, Any], threads: int) -> None:
        import torch

        from medsegdiff.cases.job import segmenter_of

        torch.set_num_threads(threads)
        self.segmenter = segmenter_of(bundle, changes, running=True)

    def ready(self) -> None:
        """Answers once the network is loaded."""

    def attempt(self, case: CaseInput) -> InputError | None:
        """Segments a case; the error if it fails."""
        return attempted(case, self.segmenter.segment)


@dataclass
class _Pool:
    """The workers, and what each of them is doing.

    Attributes:
        ray: The package.
        engine: Settings.
        cases: Number of cases; there are no more workers.
        doing: Reference of an answer -> the worker that owes it, the case (None while it starts).
        tries: Name of a case -> number of workers lost with it.
    """

    ray: Any
    engine: RayEngine
    cases: int
    doing: dict[Any, tuple[Any, CaseInput | None]] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)

    def outcomes(self, cases: Sequence[CaseInput]) -> Iterator[Outcome]:
        """Each case with its error, as it ends."""
        waiting, refused = deque(cases), 0
        for _ in range(self._number()):
            self._start()
        while self.doing:
            (answer,), _ = self.ray.wait(list(self.doing), num_returns=1)
            worker, case = self.doing.pop(answer)
            try:
                outcome = self.ray.get(answer)
            except self.ray.exceptions.RayError as error:
                refused = refused + 1 if case is None else 0
                if refused >= TRIES:
                    raise _no_worker(error) from None
                if case is not None and (failed := self._lost(case)):
                    yield case, failed
                elif case is not None:
                    waiting.appendleft(case)
                if waiting:
                    self._start()
                continue
            if case is not None:
                yield case, outcome
            if waiting:
                following = waiting.popleft()
                self.doing[worker.attempt.remote(following)] = worker, following

    def _start(self) -> None:
        """Another worker, which is given a case when it is ready."""
        of_one = self._resources()
        actor = self.ray.remote(_Worker).options(**of_one)
        threads = int(of_one["num_cpus"])
        worker = actor.remote(self.engine.bundle, self.engine.changes, threads)
        self.doing[worker.ready.remote()] = worker, None

    def _lost(self, case: CaseInput) -> InputError | None:
        """The error of a case that lost its worker; None if another one is to try it."""
        self.tries[case.id] = self.tries.get(case.id, 0) + 1
        if self.tries[case.id] < TRIES:
            logger.warning("%s lost its worker, and is done again", case.id)
            return None
        rule = f"ended its worker {TRIES} times"
        return InputError(case.id, rule, "It may take more memory than there is: do it alone")

    def _number(self) -> int:
        """Number of workers to start."""
        total = self.ray.cluster_resources()
        unit = "GPU" if self._on_gpu() else "CPU"
        number = self.engine.workers or int(total.get(unit, 1))
        return max(1, min(number, self.cases))

    def _resources(self) -> dict[str, float]:
        """Cores, and GPUs if there are, of one worker."""
        cores = int(self.ray.cluster_resources().get("CPU", 1)) // self._number()
        return {"num_cpus": max(1, cores), "num_gpus": 1 if self._on_gpu() else 0}

    def _on_gpu(self) -> bool:
        device = self.engine.changes.get("device")
        return self.ray.cluster_resources().get("GPU", 0) >= 1 and "cpu" not in str(device)


def _join(ray: Any, address: str | None) -> None:
    """Join a cluster, or start one on the cores that this process may use.

    Nothing is told to anyone: no usage statistics, no dashboard.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        ray.init(num_cpus=cores, include_dashboard=False, **quiet)
        return
    try:
        if address != "auto":  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=REACHED_WITHIN).close()
        ray.init(address=address, **quiet)
    except (OSError, ValueError) as error:  # ConnectionError is an OSError
        rule = f"no Ray cluster can be joined there ({' '.join(str(error).split())[:200]})"
        remedy = "Start one with: ray start --head, and give its HOST:PORT; or leave --address out"
        raise UsageError(f"--address {address}", rule, remedy) from None


def _no_worker(error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    rule = f"no worker can be started ({reason.strip()[:300]})"
    return InputError("--engine ray", rule, "Try the same without --engine")
