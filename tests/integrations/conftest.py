from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
collect_ignore = ["viewer_calls.py"]  # a script for the environment of MONAI Label


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of an executable ``medsegdiff`` that is this checkout's."""
    path = tmp_path_factory.mktemp("bin") / "medsegdiff"
    path.write_text(
        f"#!{sys.executable}\n"
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from medsegdiff.cli.main import main\nmain()\n"
    )
    path.chmod(0o755)
    return str(path)
