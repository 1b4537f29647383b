"""The data set of a study: a digest of all its files, and another number of folds."""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from medsegdiff.core.atomic_files import digest, write_json
from medsegdiff.core.errors import UsageError
from medsegdiff.data.manifest import Manifest, default_folds, load_manifest
from medsegdiff.data.named_sets import find_set
from medsegdiff.study.stage_record import value_digest


def data_digest(manifest: Manifest, known: MutableMapping[str, list[Any]]) -> str:
    """SHA-256 of all that a study reads of a data set: description and contents of all files.

    Where the files lie does not matter.

    Args:
        manifest: Data set.
        known: Digests from an earlier call, which are used again for files of the same size and
            time of change, and added to. A file is named by a hash of its path.

    Raises:
        OSError: a file cannot be read.
    """
    cases = [
        {
            "case": case.id,
            "patient": case.patient,
            "values": repr(case.label_values),
            "files": [
                [_of_path(path, known) for path in paths] for paths in (case.images, case.labels)
            ],
        }
        for case in manifest.cases
    ]
    return value_digest(
        {
            "cases": cases,
            "labels": manifest.labels,
            "channels": manifest.channels,
            "raters": manifest.raters,
            "dims": manifest.spatial_dims,
            "folds": manifest.folds,
            "test": manifest.test,
            "references": repr(manifest.references),
        }
    )


def _of_path(path: Path, known: MutableMapping[str, list[Any]]) -> list[str]:
    """Digests of a file, or of all files of a folder."""
    if path.is_dir():
        return [
            one
            for file in sorted(path.rglob("*"))
            if file.is_file()
            for one in _of_path(file, known)
        ]
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    state = path.stat()
    before = known.get(name)
    if before is None or before[:2] != [state.st_size, state.st_mtime_ns]:
        known[name] = [state.st_size, state.st_mtime_ns, digest([path])]
    return [str(known[name][2])]


def with_folds(data: str | Path, folds: int | None, file: Path) -> str:
    """The data set with a number of folds.

    Args:
        data: Description of the data set, its folder, or a known name.
        folds: Number of folds; None: those that the data set has.
        file: Path of a description that is written if the number is another than the data set has.

    Returns:
        What :func:`~medsegdiff.data.manifest.load_manifest` reads: absolute path, or name.

    Raises:
        UsageError: there are fewer patients than folds, or the description itself names its folds,
            and they are another number.
    """
    manifest = load_manifest(data)
    given = str(Path(data).absolute()) if Path(data).exists() else str(data)
    if folds is None or folds == len(manifest.folds):
        return given
    found = find_set(data)
    if "folds" in found.described:
        rule = f"the data set names its own {len(manifest.folds)} folds, not {folds}"
        raise UsageError("--folds", rule, "Leave the option out, or change the data set")
    patients = {case.patient for case in manifest.cases} - set(manifest.test)
    if not 2 <= folds <= len(patients):
        rule = f"must be 2 to {len(patients)}, the number of patients, not {folds}"
        raise UsageError("--folds", rule, "Give another number, or --fold 0 for a single network")
    described = {k: v for k, v in found.described.items() if k not in ("folder", "layout")}
    entries = zip(described["training"], manifest.cases, strict=True)
    described["training"] = [
        {**entry, "image": [str(path) for path in case.images]}
        | ({"label": [str(path) for path in case.labels]} if case.labels else {})
        for entry, case in entries
    ]
    described["folds"] = [list(fold) for fold in default_folds(patients, folds)]
    write_json(file, {**described, "name": manifest.name})
    return str(file.absolute())
