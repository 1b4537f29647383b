"""ACDC (https://www.creatis.insa-lyon.fr/Challenge/acdc): two frames of each heart are labelled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medsegdiff.data.public.folders import nifti

PHASES = ("ED", "ES")
"""Keys in ``Info.cfg`` of the labelled frames, at the end of diastole and of systole."""


def cases(root: Path) -> dict[str, Any]:
    """Entries of both frames of every patient; those of ``testing`` are kept for the test."""
    entries, needed = [], []
    parts = {part: sorted(root.glob(f"{part}/patient*")) for part in ("training", "testing")}
    for folder in [path for part in parts.values() for path in part if path.is_dir()]:
        patient = folder.name
        needed.append(folder / "Info.cfg")
        for frame in _frames(folder / "Info.cfg"):
            name = f"{patient}_frame{frame:02d}"
            image, label = nifti(folder, name), nifti(folder, f"{name}_gt")
            entries.append(
                {"case": name, "image": str(image), "label": str(label), "patient": patient}
            )
    tested = [folder.name for folder in parts["testing"]]
    return {"training": entries, "test_patients": tested, "needed": needed}


def _frames(info: Path) -> list[int]:
    """Numbers of the labelled frames; none if the file is missing, which is reported elsewhere."""
    if not info.exists():
        return []
    text = info.read_text(encoding="utf-8", errors="replace")
    return [int(n) for phase in PHASES for n in re.findall(rf"^{phase}\s*:\s*(\d+)", text, re.M)]
