"""The images of a folder as MONAI's data sets take them, for engines instead of our own command."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from medsegdiff.data.formats import format_of
from medsegdiff.data.manifest import case_id, datalist, load_manifest

logger = logging.getLogger(__name__)


def image_items(place: str | Path) -> list[dict[str, Any]]:
    """The images in a folder as a MONAI datalist: ``case`` and ``image`` (paths).

    It looks neither into folders below nor for DICOM series, and a file is a case; what
    ``medsegdiff segment`` takes goes further.

    Args:
        place: Folder of images, an image, or the ``dataset.json`` of a data set.

    Returns:
        Items, sorted by name; none, with a warning, if there is no image.

    Raises:
        InputError: a ``dataset.json`` cannot be read.
    """
    path = Path(place)
    if path.suffix == ".json":
        items = datalist(load_manifest(path).cases)
        return [{key: item[key] for key in ("case", "image")} for item in items]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    images = [file for file in files if file.is_file() and _is_image(file)]
    if not images:
        logger.warning("%s: there is no image to segment", place)
    return [{"case": case_id([file]), "image": [str(file)]} for file in images]


def _is_image(file: Path) -> bool:
    found = format_of(file)
    return file.name[0] != "." and found is not None and found.kind != "segmentation"
