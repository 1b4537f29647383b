"""``train -q`` says nothing, neither by itself nor by the libraries that it uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medsegdiff.bundle.bundle import Bundle
from tests.tiny_bundle import quick


@pytest.mark.long
def test_a_quiet_training_is_silent(untrained: Bundle, cohort: Path, tmp_path: Path) -> None:
    words = ["train", str(untrained.root), "--data", str(cohort), "--output", str(tmp_path / "run")]
    settings = [f"{key}={value}" for key, value in quick(tmp_path / "run").items()]
    words += ["--trust", "-q", *(word for setting in settings for word in ("--set", setting))]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    done = subprocess.run(
        [sys.executable, "-m", "medsegdiff", *words],
        env={**environment, "XDG_CONFIG_HOME": str(tmp_path / "settings")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "run" / "final.pt").is_file()
