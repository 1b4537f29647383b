"""One training by two processes: the curve, weights and files of one process."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.bundle.trusted_bundles import trust
from medsegdiff.core.errors import UsageError
from medsegdiff.training.processes import SharedInferer
from medsegdiff.training.run import train

FEW = {"tracking_uri": "off", "train#trainer#max_epochs": 2, "val_interval": 1}
TRAIN = f"""
import logging, sys
from medsegdiff.training.run import train
logging.basicConfig(level=logging.INFO, format="%(message)s")
train(*sys.argv[1:], device="cpu", overrides={FEW})
"""


def losses(log: str) -> list[float]:
    """Mean loss of each epoch, as the first process logs it."""
    return [float(word) for word in re.findall(r"train_loss ([0-9.]+)", log)]


@pytest.mark.long
def test_two_processes_train_as_one_does(
    untrained: Bundle, cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trust(untrained.root)
    alone, shared, script = (tmp_path / name for name in ("alone", "shared", "train_it.py"))
    script.write_text(TRAIN)
    way = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    two = subprocess.Popen(
        [sys.executable, *way, script, untrained.root, cohort, shared],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with caplog.at_level(logging.INFO):
        train(untrained, cohort, alone, device="cpu", overrides=FEW)
    said = two.communicate()[1]
    assert two.returncode == 0, said[-2000:]
    curves = [losses(caplog.text), losses(said)]
    assert len(curves[0]) == len(curves[1]) == 2  # the second process says nothing
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)
    assert {p.name for p in shared.iterdir()} == {p.name for p in alone.iterdir()}
    first, second = (torch.load(folder / "final.pt") for folder in (alone, shared))
    apart = [float((first[name] - second[name]).abs().max()) for name in first]
    assert max(apart) < 1e-3


def test_what_several_processes_cannot_train(
    untrained: Bundle, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(untrained.root)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("medsegdiff.training.run.join_processes", lambda: torch.device("cpu"))
    with pytest.raises(UsageError, match="none knows of the others"):
        train(untrained, cohort, tmp_path / "run", overrides={"tracking_uri": "off"})


class Echo(torch.nn.Module):
    """Doubles what it gets, and keeps how much that was."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = len(x)
        return 2.0 * x


@pytest.mark.parametrize("rank", [0, 1])
def test_a_share_has_its_part_of_gradient_and_noise(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.arange(4.0).requires_grad_()

    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        for number, part in enumerate(parts):
            part.copy_(2.0 * x.detach().chunk(2)[number])
        torch.testing.assert_close(parts[rank], own)

    monkeypatch.setattr("medsegdiff.training.processes.dist.all_gather", all_gather)
    network, share = Echo(), SharedInferer(lambda x, network: network(x), rank, 2)
    answer = share(x, network)
    torch.testing.assert_close(answer, 2.0 * x.detach())
    answer.square().sum().backward()
    assert network.seen == 2 and x.grad is not None
    expected = torch.zeros(4)
    expected[2 * rank : 2 * rank + 2] = 8.0 * x.detach()[2 * rank : 2 * rank + 2]
    torch.testing.assert_close(x.grad, expected)
    torch.manual_seed(0)
    whole = torch.randn(4, 3)
    torch.manual_seed(0)
    noise = share.noise_like(torch.empty(2, 3))
    torch.testing.assert_close(noise, whole.chunk(2)[rank])


def test_a_batch_that_cannot_be_shared_counts_once() -> None:
    x = torch.arange(3.0).requires_grad_()
    network = Echo()
    SharedInferer(lambda x, network: network(x), 0, 2)(x, network).sum().backward()
    assert network.seen == 3
    torch.testing.assert_close(x.grad, torch.ones(3))  # of two processes: 2 in all
