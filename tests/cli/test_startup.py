"""What the program decides before it imports torch and MONAI."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from medsegdiff.cli.startup import sleep_while_waiting

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


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="the extra text is not installed"
)
@pytest.mark.parametrize(("calls", "loaded"), [(0, "True"), (2, "False")])
def test_transformers_is_hidden_while_monai_is_imported(calls: int, loaded: str) -> None:
    command = [sys.executable, "-c", CODE.format(calls=calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, version = done.stdout.split()[-2:]
    assert first == loaded and version[0].isdigit()


def test_threads_sleep_unless_the_user_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_torch_is_not_imported_before_it() -> None:
    """Else OpenMP has read its variables already."""
    code = "import sys, medsegdiff.cli.main; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
