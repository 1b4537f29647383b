from __future__ import annotations

from unittest.mock import MagicMock

import pytest


@pytest.fixture
def all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of bundles and data sets need not exist: nothing is refused."""
    monkeypatch.setattr("medsegdiff.bundle.bundle.load_bundle", MagicMock())
    monkeypatch.setattr("medsegdiff.data.named_sets.find_set", MagicMock())
