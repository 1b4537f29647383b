"""What the checks of a bundle look at, and how a check says that it makes no sense."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import Bundle, with_shared
from medsegdiff.core.errors import InputError, in_words


class NotApplicableError(Exception):
    """The check makes no sense for the bundle; the message says why."""


@dataclass(frozen=True)
class CheckedBundle:
    """A bundle that is checked, from anyone and perhaps not whole.

    Attributes:
        root: Folder of the bundle.
        schema: Path of a JSON schema of ``metadata.json``; None: its keys alone are looked at.
        online: Whether MONAI may download the schema that the metadata name.
    """

    root: Path
    schema: Path | None = None
    online: bool = False

    @property
    def bundle(self) -> Bundle:
        """The bundle as this package uses it."""
        return Bundle(self.root)

    @property
    def metadata_file(self) -> Path:
        """Path of ``configs/metadata.json``."""
        return self.root / "configs" / "metadata.json"

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of ``configs/metadata.json``.

        Raises:
            InputError: it is not a readable JSON object.
        """
        try:
            found = json.loads(self.metadata_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            rule = f"cannot be read ({in_words(error)})"
            remedy = "Write it as in the bundles that ship"
            raise InputError(self.metadata_file, rule, remedy) from error
        if not isinstance(found, dict):
            rule = f"holds a {type(found).__name__}"
            raise InputError(self.metadata_file, rule, "Write a JSON object")
        return found

    def tensors(self) -> dict[str, dict[str, Any]]:
        """Description of each input and output of the network, by ``inputs#image`` and the like.

        Raises:
            InputError: the metadata cannot be read, or describe no input or no output.
        """
        found: dict[str, dict[str, Any]] = {}
        described = self.metadata.get("network_data_format")
        for side in ("inputs", "outputs"):
            tensors = described.get(side) if isinstance(described, dict) else None
            if not isinstance(tensors, dict) or not tensors:
                rule = f"lacks network_data_format#{side}"
                raise InputError(self.metadata_file, rule, "Describe the network's tensors there")
            found |= {f"{side}#{name}": tensor for name, tensor in tensors.items()}
        return found

    @contextmanager
    def resolved(self, name: str) -> Iterator[Path]:
        """A copy of a configuration for any working folder, while the block runs.

        What it takes from other files of the bundle stands in it. MONAI logs errors alone.

        Args:
            name: Name of the configuration.

        Raises:
            InputError: there is none, it cannot be parsed, or refers to what is not in the bundle.
        """
        from monai.bundle import ConfigParser

        path = self.bundle.config(name)
        with tempfile.TemporaryDirectory() as folder, _errors_alone():
            copy = Path(folder) / f"{name}.json"
            try:
                content = with_shared(ConfigParser.load_config_file(path), self.root)
                ConfigParser.export_config_file(content, str(copy))
            except InputError:
                raise
            except Exception as error:  # whatever a parser raises
                raise InputError(
                    path, f"cannot be parsed ({in_words(error)})", "Mend it"
                ) from error
            yield copy


@contextmanager
def _errors_alone() -> Iterator[None]:
    loggers = [logging.getLogger(f"monai.bundle.{name}") for name in ("scripts", "workflows")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
