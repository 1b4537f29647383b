"""The layouts of data sets on disk: how each is recognised, and who describes it.

A description is a dictionary as a ``dataset.json`` holds, which
:mod:`medsegdiff.data.manifest` reads. A further layout is a file, and a line in
``FOLDER_LAYOUTS``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.data.layouts import (
    bids,
    case_folders,
    image_and_label_folders,
    monai_datalist,
    nnunet_raw,
    one_folder,
)
from medsegdiff.data.layouts.inferred_content import missing_of_images

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderLayout:
    """A layout of a data set.

    Attributes:
        name: Name for people.
        recognises: Whether a folder, with the content of its ``dataset.json`` (empty without one),
            has this layout and has to be described.
        describe: Function that gives the whole description; paths in it start from the folder.
            ``notes`` are sentences on what was inferred.
    """

    name: str
    recognises: Callable[[Path, dict[str, Any]], bool]
    describe: Callable[[Path, dict[str, Any]], dict[str, Any]]


FOLDER_LAYOUTS = (
    FolderLayout("nnU-Net raw", nnunet_raw.recognises, nnunet_raw.describe),
    FolderLayout("MONAI datalist", monai_datalist.recognises, monai_datalist.describe),
    FolderLayout(
        "images and labels by name",
        image_and_label_folders.recognises,
        image_and_label_folders.describe,
    ),
    FolderLayout("BIDS", bids.recognises, bids.describe),
    FolderLayout("images and labels in one folder", one_folder.recognises, one_folder.describe),
    FolderLayout("one folder a case", case_folders.recognises, case_folders.describe),
)
"""All layouts; the first that recognises a folder counts."""


def completed(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The description of a folder, completed by the first layout that recognises it.

    Args:
        folder: Folder of the data set.
        described: Content of its ``dataset.json``; empty without one.

    Returns:
        ``described`` itself if it is complete. If no layout is known, ``described`` with the
        dimensions and channels of its images, where it does not name the dimensions.

    Raises:
        InputError: The layout is known, but files are missing or do not belong together.
    """
    for layout in FOLDER_LAYOUTS:
        if layout.recognises(folder, described):
            logger.debug("%s: %s", folder, layout.name)
            return layout.describe(folder, described) | {"layout": layout.name}
    images = monai_datalist.images_there(folder, described)
    return described | missing_of_images(described, images) if images else described
