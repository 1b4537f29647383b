"""The command ``medsegdiff segment``: its words, its environment, and its output as it comes.

It runs in an environment of its own, not in 3D Slicer's Python: so neither ``slicer`` nor
``medsegdiff`` is imported here. The syntax is that of Python 3.9, which older versions of 3D Slicer
have.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = "medsegdiff"
"""Name of the executable where the user has set none."""

FORMATS = "nifti,nrrd"
"""Formats that are loaded: maps, and a segmentation with names and colours."""

OUTPUT_SETTINGS = {
    "COLUMNS": "500",  # a message stays on one line
    "NO_COLOR": "1",
    "PYTHONIOENCODING": "utf-8",
    "PYTHONUNBUFFERED": "1",
}
"""Variables that make the output fit for a log."""

WINDOWS_DONE = re.compile(r"(\d+) of (\d+) windows")


@dataclass(frozen=True)
class SegmentOptions:
    """What the user chooses of a segmentation.

    Attributes:
        bundle: Name or folder of a bundle, or ``models:/name/version``.
        members: Number of masks drawn; None: as in the bundle.
        steps: Number of denoising steps; None: as in the bundle.
        device: Device: ``auto``, ``cpu``, ``cuda``, or one such as ``cuda:1``.
        trust: Whether a bundle from elsewhere may run, whose configurations are programs.
    """

    bundle: str
    members: int | None = None
    steps: int | None = None
    device: str = "auto"
    trust: bool = False


def find_executable(setting: str, search_path: str) -> str:
    """The path of the executable.

    Args:
        setting: Path or name that the user has set; empty for ``COMMAND``.
        search_path: Folders in which a name is looked for, as in ``PATH``.

    Raises:
        FileNotFoundError: there is no such executable.
    """
    name = setting.strip() or COMMAND
    found = shutil.which(os.path.expanduser(name), path=search_path)
    if found is None:
        raise FileNotFoundError(
            f"{name}: no such program. Install medsegdiff into an environment of its own, and set "
            "the path of its command, such as /home/me/medsegdiff/.venv/bin/medsegdiff"
        )
    return found


def segment_command(
    executable: str,
    image: Path,
    output: Path,
    options: SegmentOptions,
    points: Path | None = None,
) -> list[str]:
    """The words of the command line.

    Args:
        executable: Path of the program.
        image: Path of the image.
        output: Folder for the results.
        options: Choice of the user.
        points: Path of a markups file with the places to segment; None: all of the image, or the
            places that the bundle finds.
    """
    words = [executable, "segment", str(image), "--output", str(output)]
    words += ["--bundle", options.bundle, "--format", FORMATS, "--device", options.device, "--json"]
    for name, number in (("--members", options.members), ("--steps", options.steps)):
        if number is not None:
            words += [name, str(number)]
    if points is not None:
        words += ["--at", str(points)]
    return [*words, "--trust"] if options.trust else words


def write_points(path: Path, points: Iterable[tuple[str, Sequence[float]]]) -> None:
    """Write a markups file as ``--at`` takes it.

    Args:
        path: Path of the file, ending in ``.mrk.json``.
        points: Label and position, RAS+ in mm, of each point.
    """
    placed = [{"label": label, "position": list(place)} for label, place in points]
    markup = {"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": placed}
    path.write_text(json.dumps({"markups": [markup]}), encoding="utf-8")


def clean_environment(environment: Mapping[str, str], slicer_home: str) -> dict[str, str]:
    """An environment in which another Python runs with its own libraries.

    Nothing in it leads into 3D Slicer's folder (as ``LD_LIBRARY_PATH``, ``PYTHONPATH`` and others
    do within 3D Slicer), and Python's home is left to the executable.

    Args:
        environment: Names of variables -> values.
        slicer_home: Folder of 3D Slicer.
    """
    cleaned = {name: _outside(value, slicer_home) for name, value in environment.items()}
    kept = {
        name: value
        for name, value in cleaned.items()
        if name != "PYTHONHOME" and (value or not environment[name])
    }
    return {**kept, **OUTPUT_SETTINGS}


def _outside(value: str, folder: str) -> str:
    """A list of paths without those in a folder; any other value as it is."""
    if not folder:
        return value
    inside = os.path.normcase(os.path.normpath(folder))
    entries = value.split(os.pathsep)
    kept = [entry for entry in entries if not _is_within(entry, inside)]
    return value if len(kept) == len(entries) else os.pathsep.join(kept)


def _is_within(entry: str, folder: str) -> bool:
    path = os.path.normcase(os.path.normpath(entry))
    return path == folder or path.startswith(folder + os.sep)


class CommandRun:
    """A running command, whose lines are fetched while the caller does other things.

    Args:
        command: Words of the command line.
        environment: Environment of the command.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        self._cancelled = False
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._process as process:  # at its end the process has ended, too
            for line in process.stdout or ():
                self._lines.put(line.rstrip())

    def new_lines(self) -> list[str]:
        """The lines since the last call: standard output and standard error, as they came."""
        found = []
        while not self._lines.empty():
            found.append(self._lines.get())
        return found

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the command runs, or lines of it are still to come."""
        if self._reader.is_alive() or not self._lines.empty():
            return None
        return self._process.poll()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Ask the command to end, which removes its temporary files; a second call kills it."""
        if self._cancelled:
            self._process.kill()
        else:
            self._process.terminate()
        self._cancelled = True

    def end(self, seconds: float = 5.0) -> None:
        """End the command, and wait for it; one that takes longer is killed.

        Args:
            seconds: Time that the command has to end in order.
        """
        self.cancel()
        self._reader.join(seconds)
        self._process.kill()
        self._reader.join()


def share_done(line: str) -> float | None:
    """How much of the image is done, in [0, 1]; None if a line of the output does not say it."""
    found = WINDOWS_DONE.search(line)
    return int(found[1]) / max(1, int(found[2])) if found else None


def case_told(line: str) -> dict[str, Any] | None:
    """What a line of the output tells of the case as it ends; None if it is another line.

    It holds ``case`` and ``ok``, and then ``folder`` or ``error``.
    """
    if not line.startswith("{"):
        return None
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and {"case", "ok"} <= told.keys() else None


def reason_of_failure(lines: Sequence[str], exit_code: int) -> str:
    """Why a command failed, in one sentence.

    Args:
        lines: Output of the command.
        exit_code: Exit code of the command.
    """
    for told in map(case_told, reversed(lines)):
        if told and not told["ok"]:
            return str(told["error"])
    for line in reversed(lines):
        if line.startswith("medsegdiff: "):
            return line[len("medsegdiff: ") :]
    last = next((line for line in reversed(lines) if line), "it said nothing")
    return f"the command ended with exit code {exit_code}: {last}"
