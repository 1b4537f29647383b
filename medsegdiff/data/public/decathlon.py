"""Medical Segmentation Decathlon (http://medicaldecathlon.com): the cases of ``dataset.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError


def cases(root: Path) -> dict[str, Any]:
    """The part of the set's own ``dataset.json`` on labels, channels and training cases.

    Raises:
        InputError: the file is damaged.
    """
    file = root / "dataset.json"
    if not file.exists():
        return {"needed": [file]}
    try:
        described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kept = {key: described[key] for key in _OPTIONAL if key in described}
        return kept | {key: described[key] for key in ("labels", "training")}
    except (ValueError, KeyError, TypeError) as error:
        rule = f"not readable ({type(error).__name__}: {error})"
        raise InputError(file, rule, "Download the set again") from None


_OPTIONAL = ("tensorImageSize", "modality", "raters")
