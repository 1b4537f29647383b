"""A library that MONAI does not need is hidden from it, and from nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("transformers", reason="the extra text is not installed")

CODE = """
import sys
from medsegdiff.cli.startup import hide_unneeded
for _ in range({calls}):
    hide_unneeded()
import monai
print("transformers" in sys.modules)
import transformers
print(transformers.__version__)
"""


@pytest.mark.parametrize(("calls", "loaded"), [(0, "True"), (2, "False")])
def test_transformers_is_hidden_while_monai_is_imported(calls: int, loaded: str) -> None:
    command = [sys.executable, "-c", CODE.format(calls=calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, version = done.stdout.split()[-2:]
    assert first == loaded and version[0].isdigit()
