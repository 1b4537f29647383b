"""Is a resumed run still the run that it was? Its settings and its cases, before and now."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medsegdiff.core.atomic_files import read_json, write_json
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case

logger = logging.getLogger(__name__)

EFFECTIVE = (
    *("train#trainer#max_epochs", "val_interval", "num_workers", "early_stop#patience"),
    *("learning_rate", "train#optimizer#lr", "tracking_uri", "experiment_name", "device"),
)
"""Settings that may change when a run is resumed, and then take effect."""
ELSEWHERE = (
    "resume",
    "output_dir",
    "bundle_root",
    "dataset_dir",
    "_meta_",
    "run_handlers#parameters",
    "run_handlers#run_name",
    "run_handlers#tags",
)
"""Settings that need not be compared: places, and what is compared otherwise."""
SHOWN = 3
ABSENT = "nothing"


def refuse_other_settings(folder: str | Path, config: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other settings, but for those in ``EFFECTIVE``, which are logged.

    Args:
        folder: Folder of the run, with its ``config.yaml``.
        config: Configuration now.

    Raises:
        InputError: settings differ; the message names them, before and now.
    """
    path = Path(folder) / "config.yaml"
    try:
        before = dict(_flat(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, yaml.YAMLError) as error:
        rule = f"cannot be read ({error}), so that settings cannot be compared"
        raise InputError(path, rule, "Restore it, or train in another folder") from error
    now = dict(_flat(yaml.safe_load(yaml.safe_dump(dict(config)))))
    keys = sorted(before.keys() | now.keys())
    other = [key for key in keys if before.get(key, ABSENT) != now.get(key, ABSENT)]
    for key in other:
        if _is_among(key, EFFECTIVE):
            logger.info("%s: %s", key, _change(key, before, now))
    refused = [key for key in other if not _is_among(key, EFFECTIVE + ELSEWHERE)]
    if refused:
        raise _refusal(folder, refused, before, now)


def refuse_other_cases(folder: str | Path, split: Sequence[Sequence[Case]]) -> None:
    """Refuse to resume a run on other cases, or on other files of these cases.

    Args:
        folder: Folder of the run, with its ``cases.json``.
        split: Cases of training, and cases that are held out, now.

    Raises:
        InputError: they differ; the message names the first cases that do.
    """
    before, now = read_json(Path(folder) / "cases.json"), described_cases(split)
    if not isinstance(before, dict) or before == now:
        return
    for part in ("training", "validation"):
        was, is_now = set(before.get(part, ())), set(now[part])
        if was != is_now:
            gone, new = sorted(was - is_now), sorted(is_now - was)
            rule = f"the run's {part} cases were others: {_named(gone)} before, {_named(new)} now"
            raise InputError(folder, rule, "Give the data and fold of the run, or another folder")
    sizes = before.get("bytes", {})
    changed = [case for case, size in now["bytes"].items() if sizes.get(case, size) != size]
    if changed:
        sample = f"{changed[0]}: {sizes[changed[0]]} bytes before, {now['bytes'][changed[0]]} now"
        rule = f"the files of {len(changed)} of the run's cases have changed ({sample})"
        raise InputError(folder, rule, "Give the data of the run, or another folder for a new run")


def write_cases(folder: str | Path, split: Sequence[Sequence[Case]]) -> None:
    """Write a run's training and validation cases to ``folder/cases.json``."""
    write_json(Path(folder) / "cases.json", described_cases(split))


def described_cases(split: Sequence[Sequence[Case]]) -> dict[str, Any]:
    """Names of cases of training and validation, and the size of each case's files in bytes."""
    training, validation = split
    cases = [*training, *validation]
    return {
        "training": [case.id for case in training],
        "validation": [case.id for case in validation],
        "bytes": {case.id: sum(_size(p) for p in (*case.images, *case.labels)) for case in cases},
    }


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    return path.stat().st_size if path.exists() else 0


def _refusal(
    folder: str | Path, keys: Sequence[str], before: Mapping[str, Any], now: Mapping[str, Any]
) -> InputError:
    shown = "; ".join(f"{key}: {_change(key, before, now)}" for key in keys[:SHOWN])
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    options = " ".join(_option(key, before[key]) for key in keys[:SHOWN] if key in before)
    remedy = f"Go on with the run's settings ({options})" if options else "Go on as it began"
    rule = f"cannot be resumed with other settings: {shown}{more}"
    return InputError(folder, rule, f"{remedy}, or choose another folder for a new run")


def _option(key: str, value: Any) -> str:
    text = "null" if value is None else str(value)
    return f"--fold {text}" if key == "fold" else f"--set {key}={text}"


def _change(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{before.get(key, ABSENT)} before, {now.get(key, ABSENT)} now"


def _named(cases: Sequence[str]) -> str:
    listed = ", ".join(cases[:SHOWN])
    return f"{listed} and {len(cases) - SHOWN} more" if len(cases) > SHOWN else listed or "none"


def _is_among(key: str, keys: Sequence[str]) -> bool:
    return any(key == one or key.startswith(f"{one}#") for one in keys)


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a configuration by their ids, nested keys joined by ``#``."""
    if isinstance(config, dict):
        items = [(str(key), value) for key, value in config.items()]
    elif isinstance(config, list):
        items = [(str(index), value) for index, value in enumerate(config)]
    else:
        yield prefix, config
        return
    for key, value in items:
        yield from _flat(value, f"{prefix}#{key}" if prefix else key)
