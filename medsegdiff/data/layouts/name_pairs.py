"""Image and label files that belong together by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import format_of, without_ending

LABEL_WORDS = frozenset(
    {
        *("mask", "masks", "seg", "segmentation", "segmentations", "label", "labels"),
        *("gt", "groundtruth", "truth", "annotation", "annotations", "manual"),
    }
)
IMAGE_WORDS = frozenset(("image", "images", "img", "imgs", "volume", "vol", "scan"))
RULE = (
    "a label has the name of its image, but for words such as mask, seg, label, gt, annotation "
    "or image (x.png and x_mask.png, volume-1.nii and segmentation-1.nii)"
)
_BETWEEN = re.compile(r"[_\-. ]+|(?<=[A-Za-z]{3})(?=\d+$)")
"""Between words: signs, and before the number at the end of a word such as ``mask007``."""
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
    keys: dict[str, list[str]] = defaultdict(list)
    for name in images:
        keys[plain(name)].append(name)
    paired: dict[str, Path] = {}
    strangers = []
    for name, path in sorted(labels.items()):
        alike = keys.get(plain(name), [])
        image = name if name in images else alike[0] if len(alike) == 1 else None
        if image is None:
            strangers.append(name)
        elif image in paired:
            rule = f"two labels belong to one image: {paired[image].name} and {path.name}"
            raise InputError(folder, rule, "Keep one of them, or list them in a dataset.json")
        else:
            paired[image] = path
    if strangers:
        alone = sorted(set(images) - set(paired))
        rule = f"labels without an image: {listed(strangers)}"
        rule += f"; images without a label: {listed(alone)}" if alone else ""
        raise InputError(folder, rule, f"Rename the files: {RULE}")
    return paired


def plain(name: str) -> str:
    """A file's name without the words that say whether it is an image or a label.

    >>> [plain(name) for name in ("case_3-seg", "case_3", "volume-7", "mask007")]
    ['case_3', 'case_3', '7', '007']
    """
    return "_".join(w for w in words(name) if w.lower() not in LABEL_WORDS | IMAGE_WORDS)


def is_label(name: str) -> bool:
    """Whether a file's name says that it is a label.

    >>> is_label("case_3-seg"), is_label("segment_3")
    (True, False)
    """
    return any(word.lower() in LABEL_WORDS for word in words(name))


def words(name: str) -> list[str]:
    """Words of a file's name."""
    return [word for word in _BETWEEN.split(name) if word]


def named_files(folder: Path) -> dict[str, Path]:
    """Image files by name without ending: those in a folder, else all below it.

    Files below are named after their folders as well, ``patient1/a.png`` as ``patient1_a``. A
    folder whose files have no known ending, such as a DICOM series, is one image.
    """
    direct = direct_files(folder)
    if direct:
        return direct
    found: dict[str, Path] = {}
    for inner in (path for path in _visible(folder) if path.is_dir()):
        below = [
            file for file in sorted(inner.rglob("*")) if format_of(file) and file.name[0] != "."
        ]
        for file in below:
            name = "_".join(file.relative_to(folder).with_name(without_ending(file.name)).parts)
            found[name] = file
        if not below and any(inner.iterdir()):
            found[inner.name] = inner
    return found


def direct_files(folder: Path) -> dict[str, Path]:
    """Image files in a folder by name without ending, links to missing files included.

    Beside a volume, a picture of the same name is its preview, and left out.
    """
    files = [file for file in _visible(folder) if file.is_file() or file.is_symlink()]
    known = [(found.kind != "volume", file) for file in files if (found := format_of(file))]
    return {
        without_ending(file.name): file
        for _, file in sorted(known, key=lambda one: one[0], reverse=True)
    }


def _visible(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
