"""Find the description of a data set, and its files, from the user's input.

The input is a ``dataset.json``, the folder that holds one, the name of a file in
``data_manifests/``, or such a name with the folder of its files, ``acdc=/data/ACDC``. A named
description has the key ``folder``. If the input gives no folder, that one is searched below
``$MEDSEGDIFF_DATA`` if it is set, otherwise below the working directory and then below
``../shared/data``.

Keys that a named description lacks (often the list of cases) are taken from the files: with the key
``layout``, by the reader of that layout (:mod:`medsegdiff.data.public.layouts`), else from the
``dataset.json`` of the folder. A folder without a ``dataset.json``, or with one that lists no
cases, is described by its layout (:mod:`medsegdiff.data.layouts.registry`).
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.layouts.registry import FOLDER_LAYOUTS, completed
from medsegdiff.data.public.folders import archives
from medsegdiff.data.public.layouts import LAYOUTS, list_cases


@dataclass(frozen=True)
class FoundDescription:
    """A description that was found, before it is checked.

    Attributes:
        described: Content of the description.
        root: Absolute path of the folder that relative paths start from.
        file: Path of the file that it was read from.
    """

    described: dict[str, Any]
    root: Path
    file: Path


def find_set(data: str | Path) -> FoundDescription:
    """The description of the data set that ``data`` names.

    Args:
        data: Path, name, or ``name=folder``.

    Raises:
        InputError: the path does not exist, the name is unknown, the data are missing or not
            complete, or the file is not readable as JSON.
    """
    name, place = split_place(data)
    file = _find_description(name)
    described = read_json(file) if file.is_file() else {}
    if "folder" not in described:
        root = (file.parent if file.is_file() else file).absolute()
        described = completed(root, described)
        if not described:
            raise _nothing_known(file)
        return FoundDescription(described, root, file)
    root = place.absolute() if place else _find_data(name, described)
    if "layout" in described:
        if described["layout"] not in LAYOUTS:
            rule = f"'layout' is not one of {', '.join(LAYOUTS)}"
            raise InputError(file, rule, "Remove it, and list the cases")
        described = list_cases(name, described["layout"], root) | described
    elif "training" not in described and (root / "dataset.json").is_file():
        described = read_json(root / "dataset.json") | described
    return FoundDescription(described, root, file)


def split_place(data: str | Path) -> tuple[str, Path | None]:
    """Name and folder of ``name=folder``; for any other input, the input itself and None.

    Raises:
        InputError: the name is not known, or the folder does not exist.
    """
    name, equals, given = str(data).partition("=")
    if not equals or os.sep in name or Path(data).expanduser().exists():
        return str(data), None
    if name not in manifest_names():
        raise InputError(name, "not the name of a data set", _suggestion(name))
    place = Path(given).expanduser()
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "no such folder"
        raise InputError(place, what, f"Give the folder of {name}")
    return name, place


def manifest_names() -> list[str]:
    """Names of the descriptions in ``data_manifests/``, sorted."""
    return sorted(path.stem for path in _manifest_folder().glob("*.json"))


def read_named(name: str) -> dict[str, Any]:
    """Content of the description of that name.

    Raises:
        InputError: the description does not exist or is not readable.
    """
    return read_json(_manifest_folder() / f"{name}.json")


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: the file is not readable, or does not hold an object.
    """
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(file, f"not readable as JSON ({error})", "Give a dataset.json") from None
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "Check the file") from None
    if not isinstance(described, dict):
        raise InputError(file, "must hold a JSON object", "Give a dataset.json") from None
    return described


def _manifest_folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "data_manifests"
    return installed if installed.is_dir() else package.parent / "data_manifests"


def _find_description(data: str) -> Path:
    path = Path(data).expanduser()
    if path.is_dir():
        if (path / "dataset.json").is_file():
            return path / "dataset.json"
        return path
    if path.is_file():
        return path
    if path.suffix == ".json" or len(path.parts) != 1:
        raise InputError(path, "no such file or folder", "Check the path")
    named = _manifest_folder() / f"{path}.json"
    if named.is_file():
        return named
    raise InputError(path, "neither a path nor the name of a data set", _suggestion(data))


def _nothing_known(folder: Path) -> InputError:
    what = "the folder is empty" if not any(folder.iterdir()) else "the folder has none"
    layouts = ", ".join(layout.name for layout in FOLDER_LAYOUTS)
    rule = f"a dataset.json is needed, but {what}, and no known layout ({layouts})"
    remedy = "Describe the cases in one, put files of the same names into images/ and labels/, "
    return InputError(folder, rule, f"{remedy}or give the name of a known set: name=folder")


def _suggestion(name: str) -> str:
    names = manifest_names()
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return f"Did you mean {close[0]}? Known: {', '.join(names)}" if close else "Give a path"


def _find_data(name: str, described: dict[str, Any]) -> Path:
    folder, reference = str(described["folder"]), str(described.get("reference", ""))
    if os.environ.get("MEDSEGDIFF_DATA"):
        places = [Path(os.environ["MEDSEGDIFF_DATA"]).expanduser()]
    else:
        places = [Path.cwd(), Path.cwd().parent / "shared" / "data"]
    for place in places:
        if (place / folder).is_dir():
            return (place / folder).absolute()
    packed = [file for place in places for file in archives(place) if file.name.startswith(folder)]
    looked = " or ".join(str(place / folder) for place in places)
    raise InputError(
        name,
        f"a known data set, but its files are not at {looked}",
        f"Unpack {packed[0]}"
        if packed
        else f"Get it ({reference}) and let MEDSEGDIFF_DATA name the folder that holds '{folder}', "
        f"or say where it is: {name}=FOLDER",
    )
