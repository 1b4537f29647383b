from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medsegdiff.prompting.pipeline import TextToImage, load_pipeline
from tests.tiny_pipeline import save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline."""
    return save_tiny(tmp_path_factory.mktemp("text") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> TextToImage:
    """The same, loaded."""
    return load_pipeline(tiny_folder, torch.device("cpu"), dtype=torch.float32)
