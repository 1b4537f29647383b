"""Classes, channels and axes of a data set, taken from its files where nothing names them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import is_photograph
from medsegdiff.data.images import read_geometry, read_image
from medsegdiff.data.label_values import nearly_whole

MOST_CLASSES = 64
"""Number of different values from which a label file is taken for something else."""
FEWEST_OBJECTS = 10
"""Number of objects that one label file must have at least, if values are to number objects."""
ANY_OBJECT = "1-999999999"
"""Values of numbered objects, as a range of ``label_values``."""
_LOOKED_AT = 20
"""Number of photographs that are looked at for colours."""
_PIECES_OF = 5
"""Number of label files that are looked at for the pieces of each value."""


def inferred_labels(files: Sequence[Path], names: dict[int, str] | None = None) -> dict[str, Any]:
    """``labels``, ``label_values`` if the values are no class numbers, and ``notes``.

    All label files are read. Values become classes in their order; 0, or the least value, is the
    background. A mask with values in between, such as a JPEG, is cut at the half of 255. Values
    that number objects (cells, lesions), from 1 on in each file, are one class.

    Args:
        files: Paths of the label files; those that do not exist are passed over.
        names: Names of values, where they are known.

    Raises:
        InputError: No label file can be read, or the values are no classes.
    """
    names = names or {}
    there = tuple(file for file in files if os.path.exists(file))
    of_files = [_values_of(file, *_state(file)) for file in there]
    values = sorted(set().union(*of_files) | {0})
    if there and set(names) <= {0, 1} and _number_objects(there, of_files):
        name = names.get(1, "class 1")
        note = f"label values number objects, up to {values[-1]} in a file: all are {name}"
        labels = {"0": "background", "1": name}
        return {"labels": labels, "label_values": {"0": 0, ANY_OBJECT: 1}, "notes": [note]}
    lossy = any(file.suffix.lower() in (".jpg", ".jpeg") for file in there)
    between = len(values) > MOST_CLASSES or (lossy and len(values) > 2 and values[-1] > 127)
    if between and 127 < values[-1] <= 255 and all(map(is_photograph, there)):
        note = "values of the masks from 128 on are taken as the structure"
        labels = {"0": "background", "1": names.get(255, names.get(1, "class 1"))}
        return {"labels": labels, "label_values": {"0-127": 0, "128-255": 1}, "notes": [note]}
    if len(values) > MOST_CLASSES:
        rule = f"label files hold {len(values)} different values, from {values[0]} to {values[-1]}"
        remedy = (
            "Are they images? Name the classes in a labels.json; if values number objects, write"
            ' "labels": {"0": "background", "1": "object"}, '
            f'"label_values": {{"0": 0, "{ANY_OBJECT}": 1}} into a dataset.json'
        )
        raise InputError(there[0].parent, rule, remedy)
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


def missing_labels(
    described: Mapping[str, Any], files: Sequence[Path], names: dict[int, str] | None = None
) -> dict[str, Any]:
    """What a description leaves out of the classes, as :func:`inferred_labels` gives it.

    Where it says by ``label_values`` what values mean, the label files are not read.

    Args:
        described: Content of a ``dataset.json``.
        files: Paths of the label files.
        names: Names of values, where they are known.

    Raises:
        InputError: No label file can be read, or the values are no classes.
    """
    if "labels" in described:
        return {}
    given = described.get("label_values")
    if not isinstance(given, dict):
        return inferred_labels(files, names)
    classes = sorted({0, *(n for n in given.values() if type(n) is int)})
    return {"labels": {str(n): f"class {n}" if n else "background" for n in classes}, "notes": []}


def _number_objects(files: Sequence[Path], of_files: Sequence[frozenset[int]]) -> bool:
    """Whether values number the objects of each file.

    Each file then counts from 1, with few gaps, so that the highest value differs between files,
    and most values are one connected piece. Of classes it is the same in all that have the last.
    """
    counts, ends = zip(*((len(one - {0}), max(one, default=0)) for one in of_files), strict=True)
    without_gaps = all(end <= 1.2 * n + 2 for n, end in zip(counts, ends, strict=True))
    if max(counts) < FEWEST_OBJECTS or not without_gaps:
        return False
    if len(set(ends)) < max(4, min(len(ends) // 2, max(ends) // 2, 12)):
        return False
    most = sorted(zip(counts, files, strict=True), reverse=True)[:_PIECES_OF]
    pieces = np.concatenate([_pieces(file, *_state(file)) for _, file in most])
    return bool((pieces == 1).mean() > 0.5)


@lru_cache(maxsize=1000)
def _pieces(file: Path, changed: int, size: int) -> NDArray[np.intp]:
    """Number of connected pieces of each value but 0, those that touch at a corner are one."""
    values, geometry = read_image(file, label=True)
    plane = np.rint(values.reshape(*geometry.shape, -1)[..., 0]).astype(np.int64)
    touching = np.ones((3,) * plane.ndim)
    boxes = enumerate(ndimage.find_objects(plane), start=1)
    return np.array([ndimage.label(plane[box] == v, touching)[1] for v, box in boxes if box])


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
