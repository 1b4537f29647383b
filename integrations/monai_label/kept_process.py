"""Keeps the process in the environment of medsegdiff that segments, and its latest results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException

KEPT = 4
"""Number of results that are kept, so that the variance needs no second ensemble."""


class KeptProcess:
    """The process of ``worker.py``: started when it is needed, one request at a time.

    Args:
        python: Path of the Python of medsegdiff's environment.
    """

    def __init__(self, python: str) -> None:
        self.python = python
        self._process: subprocess.Popen[str] | None = None
        self._busy = threading.Lock()
        self._results: dict[str, Path] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="medsegdiff-")  # goes with the server

    def describe(self, bundle: str) -> dict[str, Any]:
        """Name of a bundle, its task, classes, and whether it takes points."""
        with self._busy:
            return self._ask({"describe": bundle})

    def segmented(
        self,
        image: str,
        bundle: str,
        settings: Mapping[str, Any],
        voxels: Sequence[Sequence[int]],
    ) -> Path:
        """Folder with the files of a segmented image; the same request is done once.

        Raises:
            HTTPException: it cannot be segmented; the text says why, and what to do.
        """
        path = Path(image)
        changed = path.stat().st_mtime_ns if path.exists() else None
        key = json.dumps([image, changed, bundle, settings, voxels], sort_keys=True)
        with self._busy:
            if key not in self._results:
                output = tempfile.mkdtemp(dir=self._folder.name)
                request = {"image": image, "bundle": bundle, "output": output}
                answer = self._ask({**request, "settings": settings, "voxels": voxels})
                self._results[key] = Path(answer["folder"])
                self._forget()
            return self._results[key]

    def _forget(self) -> None:
        for key in list(self._results)[:-KEPT]:
            shutil.rmtree(self._results.pop(key).parent)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            rule = f"{self.python} ended without an answer; the log of the server says why"
            remedy = "Give the Python of medsegdiff's environment: --conf python PATH"
            raise HTTPException(500, f"{rule}. {remedy}")
        answer = json.loads(line)
        if "error" in answer:
            raise HTTPException(422, answer["error"])
        return answer

    def _start(self) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        words = [self.python, str(Path(__file__).with_name("worker.py"))]
        own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.Popen(words, **pipes, env=own, text=True, encoding="utf-8")
