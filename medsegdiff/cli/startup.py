"""Shorter start of the program: what MONAI imports and no command needs of it."""

from __future__ import annotations

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


def _monai_is_being_imported() -> bool:
    spec = getattr(sys.modules.get("monai"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
