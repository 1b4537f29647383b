"""A signal ends a training with one line, an exit code and a run that can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import torch

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.stopping import Stopped, stopping_on_signals
from medsegdiff.training.checkpoints import latest_checkpoint
from tests.tiny_bundle import quick


def test_signals_are_raised_within_and_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with pytest.raises(Stopped) as stopped, stopping_on_signals():
            os.kill(os.getpid(), number)
            time.sleep(1)
        assert stopped.value.exit_code == code and number.name in str(stopped.value)
        assert isinstance(stopped.value, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_command_says_what_is_safe_and_how_to_go_on(
    untrained: Bundle, cohort: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    output = tmp_path / "run"
    settings = quick(output, epochs=500)
    words = ["train", str(untrained.root), "--data", str(cohort), "--output", str(output)]
    words += [f"--set={key}={value}" for key, value in settings.items()]
    program = "from medsegdiff.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 120
        while latest_checkpoint(output) is None and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "Traceback" not in told and "terminating" not in told
    (line,) = (line for line in told.splitlines() if line.startswith("medsegdiff: stopped"))
    assert number.name in line and "--resume" in line and f"--output {output}" in line
    last = latest_checkpoint(output)
    assert last is not None and last.name in line
    torch.load(last, weights_only=True)
    assert not (output / "training.lock").exists() and not (output / "final.pt").exists()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns.db")
    experiment = client.get_experiment_by_name("hippocampus_mr")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"
