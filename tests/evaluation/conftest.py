"""Segmented cases of which everything is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.core.types import Geometry
from medsegdiff.evaluation.case_view import CaseView

MakeCaseView = Callable[..., CaseView]
Folders = tuple[Path, Path]


@pytest.fixture
def make_case_view() -> MakeCaseView:
    """Makes a case from a label map: ``make_case_view(seg, reference=..., affine=...)``."""

    def make(
        seg: np.ndarray,
        *,
        reference: np.ndarray | None = None,
        annotations: list[np.ndarray] | None = None,
        members: np.ndarray | None = None,
        variance: np.ndarray | None = None,
        affine: np.ndarray | None = None,
        axes: str = "RAS",
        stack: bool = False,
        image: np.ndarray | None = None,
    ) -> CaseView:
        reference = seg if reference is None else reference
        return CaseView(
            image=np.arange(seg.size, dtype=np.float32).reshape(seg.shape)
            if image is None
            else image,
            annotations=np.stack(annotations or [reference]),
            reference=reference,
            seg=seg,
            members=members,
            mean={v: (seg == v).astype(np.float32) for v in (1, 2) if (seg == v).any()},
            variance=variance,
            geometry=Geometry(seg.shape, np.eye(4) if affine is None else affine),
            axes=axes[: seg.ndim],
            stack=stack,
        )

    return make
