"""Calibration of another program's model, from its predictions as it wrote them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.calibration.calibrate_bundle import calibrate
from medsegdiff.calibration.coverage import SPLITS
from medsegdiff.calibration.fitted import Calibration
from medsegdiff.core.types import ScalingChoice
from medsegdiff.other_models.adopt_predictions import adopt
from medsegdiff.other_models.prediction_layouts import LayoutName

logger = logging.getLogger(__name__)


def is_adopted(folder: Path) -> bool:
    """Whether a folder holds folders of cases as ``adopt`` or ``segment`` leaves them."""
    return any((one / f"{one.name}_run.json").is_file() for one in folder.glob("*"))


def calibrate_other(
    data: str | Path,
    predictions: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    classes: Mapping[str, Sequence[int]] | None = None,
    model: str | None = None,
    layout: LayoutName = "auto",
    method: ScalingChoice = "auto",
    splits: int = SPLITS,
    progress: Callable[[str], Callable[[Sequence[Any]], Iterable[Any]]] = lambda _: iter,
) -> Calibration:
    """Fit a calibration to another program's predictions of cases with references, and write it.

    Args:
        data: Path of the data set's description, or a known name.
        predictions: Folder that ``adopt`` wrote, or folders as the program left them, which are
            adopted for the time of the fit. The cases must not be those that it was trained on.
        output: Path of the file to write.
        classes: Numbers of the maps of each class, see ``adopt``.
        model: Name of the model, see ``adopt``.
        layout: Name of the predictions' layout, or ``auto``.
        method: Method of the scaling, see ``calibration.calibrate``.
        splits: Number of random splits that check the calibration; 0: none.
        progress: Function that makes a wrapper of a sequence from a description.

    Raises:
        InputError: no prediction has a reference, or a prediction or the data cannot be used.
        UsageError: an option is wrong.
    """
    folders = [predictions] if isinstance(predictions, str | Path) else list(predictions)
    how: dict[str, Any] = {"method": method, "splits": splits, "progress": progress}
    if len(folders) == 1 and is_adopted(Path(folders[0])):
        return calibrate(None, data, folders[0], output, **how)
    with tempfile.TemporaryDirectory(prefix="medsegdiff-") as work:
        named: dict[str, Any] = {"classes": classes, "model": model, "layout": layout}
        failures = adopt(folders, work, data=data, preview=False, **named)
        for reason in failures.values():
            logger.warning("left out: %s", reason)
        return calibrate(None, data, work, output, **how)
