"""The files of a study, by their names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medsegdiff.bundle.bundle import CALIBRATION, LOCATOR_FILE, RESULT, Bundle


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study.

    Attributes:
        root: Absolute path of the folder.
    """

    root: Path

    @property
    def description(self) -> Path:
        """Description of the data, written where ``--folds`` changes it."""
        return self.root / "dataset.json"

    @property
    def untrained(self) -> Bundle:
        """The planned or copied bundle, without weights."""
        return Bundle(self.root / "untrained" / self.root.name)

    @property
    def bundle(self) -> Bundle:
        """The result."""
        return Bundle(self.root / RESULT)

    @property
    def calibration(self) -> Path:
        """The calibration of the result."""
        return self.bundle.root / CALIBRATION

    def fold(self, number: int) -> Path:
        """Folder of the training of a fold."""
        return self.root / f"fold{number}"

    def weights(self, number: int) -> Path:
        """Weights at the end of the training of a fold; those of the best epoch knew its cases."""
        return self.fold(number) / "final.pt"

    def all_weights(self, number: int) -> list[Path]:
        """Weights of a fold, with those of its locator if it has one."""
        locator = self.fold(number) / LOCATOR_FILE
        return [self.weights(number), *([locator] if locator.is_file() else [])]

    def single(self, number: int) -> Bundle:
        """The bundle with the network of one fold."""
        return Bundle(self.fold(number) / "network" / self.root.name)

    def held_out(self, number: int) -> Path:
        """Folder of the segmented cases that the network of a fold was not trained on."""
        return self.fold(number) / "held_out"

    def records(self, folds: Sequence[int]) -> list[Path]:
        """The records of all held-out cases, sorted."""
        return sorted(p for k in folds for p in self.held_out(k).glob("*/*_run.json"))

    @contextmanager
    def all_held_out(self, folds: Sequence[int]) -> Iterator[Path]:
        """A folder with the held-out cases of all folds, which takes no space, within the block."""
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".held_out-") as name:
            for number in folds:
                for case in sorted(self.held_out(number).iterdir()):
                    if case.is_dir():
                        shutil.copytree(case, Path(name) / case.name, copy_function=_linked)
            yield Path(name)


def _linked(source: str, target: str) -> str:
    """A second name of a file; a copy where the disk has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
