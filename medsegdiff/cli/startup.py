"""What is decided before torch and MONAI are imported: by the program, not by the library."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

UNNEEDED = ("transformers",)
"""Libraries that MONAI imports if they are there, for networks that no bundle of ours uses."""


class HiddenFromMonai(MetaPathFinder):
    """Says that a library is not there while MONAI is being imported, and only then.

    ``transformers`` takes a quarter of the time that ``import monai`` takes, for one of MONAI's
    networks. Whoever imports it later, as the commands on words do, gets it.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None, so that other finders look for the module.

        Raises:
            ModuleNotFoundError: the library is hidden, and MONAI asks for it.
        """
        if name.partition(".")[0] in UNNEEDED and _monai_is_being_imported():
            raise ModuleNotFoundError(f"hidden while monai is imported: {name}", name=name)
        return None


def hide_unneeded() -> None:
    """Hide the libraries from MONAI in this process. For programs, not for libraries."""
    if not any(isinstance(finder, HiddenFromMonai) for finder in sys.meta_path):
        sys.meta_path.insert(0, HiddenFromMonai())


def sleep_while_waiting() -> None:
    """Let the threads of torch sleep while they wait for each other, unless the user decides.

    By default they spin. Where another process needs the core, each then waits for a thread that is
    not running: a pass of a 3D encoder with two threads, on two cores that others kept busy, took
    2.0 s; 0.31 s where they sleep, and 0.29 s with one thread. OpenMP reads the variable once, when
    torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _monai_is_being_imported() -> bool:
    spec = getattr(sys.modules.get("monai"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
