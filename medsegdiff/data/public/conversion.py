"""Convert sets whose files cannot be read directly to a ``dataset.json`` with its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.named_sets import read_named, split_place
from medsegdiff.data.public import ddti, lidc_idri
from medsegdiff.data.public.layouts import require_raw

T = TypeVar("T")

CONVERTERS: dict[str, Callable[[Path, Path, Callable[..., Any]], tuple[list[Any], dict[str, str]]]]
CONVERTERS = {"ddti": ddti.convert, "lidc_idri": lidc_idri.convert}
_COPIED = ("name", "description", "reference", "licence", "tensorImageSize", "modality", "labels")


def convert(
    data: str,
    output: Path,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> dict[str, str]:
    """Convert a set as it was downloaded.

    Args:
        data: Name and folder of the set, ``name=folder``.
        output: New folder for ``imagesTr``, ``labelsTr`` and, written last, ``dataset.json``.
        progress: Wrapper of the sequence of cases.

    Returns:
        Reason of each failure, by file or patient.

    Raises:
        UsageError: ``data`` is not of the form ``name=folder``, or no such set is converted.
        InputError: the folder is not that of the set, ``output`` is not empty, or nothing was
            converted.
    """
    name, root = split_place(data)
    if name not in CONVERTERS or root is None:
        rule = f"not one of {', '.join(f'{known}=FOLDER' for known in CONVERTERS)}"
        raise UsageError(data, rule, "Other sets are read as they are")
    if output.exists() and any(output.iterdir()):
        raise InputError(output, "is not empty", "Give a new folder")
    require_raw(name, root)
    entries, failures = CONVERTERS[name](root, output, progress)
    if not entries:
        first = next(iter(failures.values()), "no case was found")
        raise InputError(root, f"nothing could be converted: {first}", "Is the download complete?")
    described = read_named(name)
    kept = {key: described[key] for key in (*_COPIED, "raters") if key in described}
    write_json(output / "dataset.json", kept | {"training": entries})
    return failures
