"""One line of JSON for each case, for scripts that read what a command prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medsegdiff.core.atomic_files import read_json
from medsegdiff.core.errors import InputError, reason_of

OF_RECORD = ("volume_ml", "present", "review", "unlike_training", "warnings", "seconds")
"""Entries of ``<case>_run.json`` that a line repeats."""


def printed(output: Path) -> Callable[[str, InputError | None], None]:
    """A function that prints the line of a case, as soon as it has ended.

    Args:
        output: Folder that holds a folder for each case.
    """
    return lambda case, error: print(json.dumps(case_line(output, case, error)), flush=True)


def case_line(output: Path, case: str, error: InputError | None) -> dict[str, Any]:
    """The content of a line: ``case``, ``ok``, then ``folder`` and ``OF_RECORD``, or ``error``.

    Args:
        output: Folder that holds a folder for each case.
        case: Name of the case, or path of an input that is none.
        error: Error, if it failed.
    """
    if error is not None:
        return {"case": case, "ok": False, "error": reason_of(error)}
    record = read_json(output / case / f"{case}_run.json")
    told = {name: record.get(name) for name in OF_RECORD}
    return {"case": case, "ok": True, "folder": str(output / case), **told}
