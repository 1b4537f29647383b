"""Image and label files that belong together by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import format_of, without_ending

_SUFFIX = re.compile(
    r"[_\-. ](mask|masks|seg|segmentation|label|labels|gt|annotation|manual)$", re.IGNORECASE
)
_IMAGE_SUFFIX = re.compile(r"[_\-. ](image|img)$", re.IGNORECASE)
RULE = (
    "a label has the name of its image, also with _mask, _seg, _label, _gt or _annotation behind it"
)
_SHOWN = 5


def pair(images: Mapping[str, object], labels: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """The label of each image that has one, by the image's name.

    Args:
        images: Images by name, without ending.
        labels: Paths of the label files by name, without ending.
        folder: Folder of the data set, for messages.

    Raises:
        InputError: Labels belong to no image, or two to one.
    """
    keys = {name: name for name in images}
    keys |= {_IMAGE_SUFFIX.sub("", name): name for name in images if _IMAGE_SUFFIX.search(name)}
    paired: dict[str, Path] = {}
    strangers = []
    for name, path in sorted(labels.items()):
        image = keys.get(name, keys.get(plain(name)))
        if image is None:
            strangers.append(name)
        elif image in paired:
            rule = f"two labels belong to one image: {paired[image].name} and {path.name}"
            raise InputError(folder, rule, "Keep one of them, or list them in a dataset.json")
        else:
            paired[image] = path
    if strangers:
        alone = sorted(set(images) - set(paired))
        rule = f"labels without an image: {_listed(strangers)}"
        rule += f"; images without a label: {_listed(alone)}" if alone else ""
        raise InputError(folder, rule, f"Rename the files: {RULE}")
    return paired


def plain(name: str) -> str:
    """Name of a label without what says that it is one.

    >>> plain("case_3-seg"), plain("case_3")
    ('case_3', 'case_3')
    """
    return _SUFFIX.sub("", name)


def named_files(folder: Path) -> dict[str, Path]:
    """Image files by name without ending: those in a folder, else all below it.

    Files below are named after their folders as well, ``patient1/a.png`` as ``patient1_a``. A
    folder whose files have no known ending, such as a DICOM series, is one image.
    """
    files = [file for file in _visible(folder) if file.is_file() or file.is_symlink()]
    direct = {without_ending(file.name): file for file in files if format_of(file)}
    if direct:
        return direct
    found: dict[str, Path] = {}
    for inner in (path for path in _visible(folder) if path.is_dir()):
        below = [file for file in sorted(inner.rglob("*")) if format_of(file)]
        for file in below:
            name = "_".join(file.relative_to(folder).with_name(without_ending(file.name)).parts)
            found[name] = file
        if not below and any(inner.iterdir()):
            found[inner.name] = inner
    return found


def _visible(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
