"""Compiled networks give the same masks; where compiling fails, the plain ones go on."""

import logging
from typing import Any

import pytest
import torch

from medsegdiff.models import compilation
from medsegdiff.models.compilation import compile_parts
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from tests.tiny import tiny_segmenter

PARTS = ("encoder", "denoiser")


def masks(network: DiffusionSegmenter) -> torch.Tensor:
    torch.manual_seed(1)
    condition = network.encode(torch.randn(1, 1, 12, 12))
    return network.x_0(torch.randn(2, 3, 6, 6), torch.tensor([50]), condition)[0].detach()


def test_compiled_parts_give_the_same_masks_under_the_same_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Traced but not translated: no compiler is needed."""
    real = torch.compile

    def traced(function: Any, **options: Any) -> Any:
        return real(function, backend="eager", dynamic=options["dynamic"])

    monkeypatch.setattr(compilation.torch, "compile", traced)
    network = tiny_segmenter(2)
    before, names = masks(network), set(network.state_dict())
    compile_parts(network, "default", PARTS)
    torch.testing.assert_close(masks(network), before)
    assert set(network.state_dict()) == names


def test_a_failure_is_told_once_and_the_plain_network_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function: Any, **options: Any) -> Any:
        def fail(*args: Any) -> Any:
            raise RuntimeError("no compiler\nand a long story")

        return fail

    monkeypatch.setattr(compilation.torch, "compile", broken)
    network = tiny_segmenter(2)
    before = masks(network)
    compile_parts(network, "reduce-overhead", PARTS)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(masks(network), before)
        masks(network)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{part} runs uncompiled: RuntimeError: no compiler" for part in PARTS]


def test_off_leaves_everything_as_it_is() -> None:
    network = tiny_segmenter(2)
    forward = network.encoder.forward
    assert compile_parts(network, "off", PARTS) is network
    assert network.encoder.forward == forward
