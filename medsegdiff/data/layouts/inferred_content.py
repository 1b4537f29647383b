"""Classes, channels and axes of a data set, taken from its files where nothing names them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import is_photograph
from medsegdiff.data.images import read_geometry, read_image
from medsegdiff.data.label_values import nearly_whole

MOST_CLASSES = 64
"""Number of different values from which a label file is taken for something else."""
_LOOKED_AT = 20
"""Number of photographs that are looked at for colours."""


def inferred_labels(files: Sequence[Path], names: dict[int, str] | None = None) -> dict[str, Any]:
    """``labels``, ``label_values`` if the values are no class numbers, and ``notes``.

    All label files are read. Values become classes in their order; 0, or the least value, is the
    background. A mask with values in between, such as a JPEG, is cut at the half of 255.

    Args:
        files: Paths of the label files; those that do not exist are passed over.
        names: Names of values, where they are known.

    Raises:
        InputError: No label file can be read, or the values are no classes.
    """
    names = names or {}
    there = tuple(file for file in files if os.path.exists(file))
    values = sorted(set().union(*(_values_of(file, *_state(file)) for file in there)) | {0})
    lossy = any(file.suffix.lower() in (".jpg", ".jpeg") for file in there)
    between = len(values) > MOST_CLASSES or (lossy and len(values) > 2 and values[-1] > 127)
    if between and values[-1] <= 255 and all(map(is_photograph, there)):
        note = "values of the masks from 128 on are taken as the structure"
        labels = {"0": "background", "1": names.get(255, names.get(1, "class 1"))}
        return {"labels": labels, "label_values": {"0-127": 0, "128-255": 1}, "notes": [note]}
    if len(values) > MOST_CLASSES:
        rule = f"label files hold {len(values)} different values, from {values[0]} to {values[-1]}"
        raise InputError(
            there[0].parent, rule, "Are they images? Name the classes in a labels.json"
        )
    if len(values) < 2:  # what check says of it names the remedy
        return {"labels": {"0": "background", "1": "class 1"}, "notes": []}
    number = {value: index for index, value in enumerate(values)}
    labels = {
        str(i): names.get(value, f"class {i}" if i else "background") for value, i in number.items()
    }
    if values == list(range(len(values))):
        return {"labels": labels, "notes": []}
    told = ", ".join(f"{value} is {labels[str(i)]}" for value, i in number.items())
    given = {str(value): i for value, i in number.items()}
    return {"labels": labels, "label_values": given, "notes": [f"label values: {told}"]}


def inferred_images(images: Sequence[Sequence[Path]]) -> dict[str, Any]:
    """``tensorImageSize`` and ``channel_names``, from the files of each case.

    Args:
        images: Paths of the files of each case, one of all channels or one a channel.

    Raises:
        InputError: The first image that is there cannot be read.
    """
    there = [files for files in images if all(map(os.path.exists, files))]
    if not there:
        missing = images[0][0]
        kind = "a link to a file that is not there" if os.path.islink(missing) else "missing"
        raise InputError(missing, f"is {kind}, as are all images", "Get the files")
    first = there[0][0]
    geometry = read_geometry(first)
    flat = len(geometry.shape) == 2 or geometry.shape[2:] == (1,)
    count = len(there[0])
    if count == 1 and is_photograph(first):
        count = max(_channels_of(files[0]) for files in there[:_LOOKED_AT])
        names = ["red", "green", "blue"] if count == 3 else ["grey"]
    else:
        count = count if count > 1 else _channels_of(first)
        names = [f"channel {i}" for i in range(count)]
    described = {str(i): name for i, name in enumerate(names)}
    return {"tensorImageSize": "2D" if flat else "3D", "channel_names": described}


def missing_of_images(
    described: Mapping[str, Any], images: Sequence[Sequence[Path]]
) -> dict[str, Any]:
    """What a description leaves out of ``tensorImageSize`` and the channels' names.

    Args:
        described: Content of a ``dataset.json``.
        images: Paths of the files of each case, one of all channels or one a channel.

    Raises:
        InputError: The first image that is there cannot be read.
    """
    if "tensorImageSize" in described:
        return {}
    inferred = inferred_images(images)
    if {"channel_names", "modality"} & set(described):
        del inferred["channel_names"]
    return inferred


def _channels_of(file: Path) -> int:
    values, geometry = read_image(file)
    return values.shape[-1] if values.ndim > len(geometry.shape) else 1


def _state(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=10_000)
def _values_of(file: Path, changed: int, size: int) -> frozenset[int]:
    """Values of a label file as long as it does not change; those near whole numbers are these."""
    values, geometry = read_image(file, label=True)
    if len(geometry.shape) == 2 and values.shape[2:] == (3,):
        if not (values == values[..., :1]).all():
            rule = "is a mask with colours, which do not say their classes"
            raise InputError(file, rule, "Save it with one value a class")
        values = values[..., 0]
    found = nearly_whole(np.unique(values))
    if not (np.isfinite(found) & (found == np.rint(found))).all() or found.min() < 0:
        rule = f"label values must be whole numbers from 0 on, not {found[:3].tolist()}"
        raise InputError(file, rule, "Resample labels with nearest neighbours")
    return frozenset(found.astype(int).tolist())
