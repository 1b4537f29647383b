"""The encoder first, then the denoiser on its features."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.core.errors import InputError
from medsegdiff.models.losses import DiffusionSegmentationLoss
from medsegdiff.training.prepare_batch import NoisedMaskPrepareBatch
from medsegdiff.training.stages import cosine_stages, freeze
from tests.tiny import tiny_segmenter


def test_the_encoder_learns_alone_and_then_stands_still() -> None:
    network = tiny_segmenter(2).train()
    prepare = NoisedMaskPrepareBatch(network, anchor_steps=2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    loss = DiffusionSegmentationLoss()
    batch = {"image": torch.randn(2, 1, 16, 16), "label": torch.randint(3, (2, 1, 16, 16))}
    states = []
    for _ in range(4):
        image, targets, _, given = prepare(batch)
        optimizer.zero_grad(set_to_none=False)  # as MONAI's trainer does
        loss(network(image, **given), targets).backward()
        optimizer.step()
        states.append({name: value.clone() for name, value in network.state_dict().items()})

    def moved(part: str, step: int) -> bool:
        names = [name for name in states[0] if name.startswith(part)]
        return any(not torch.equal(states[step][n], states[step - 1][n]) for n in names)

    assert moved("encoder", 1) and not moved("denoiser", 1)
    for step in (2, 3):
        assert not moved("encoder", step) and moved("denoiser", step)


def test_by_default_both_learn_together() -> None:
    network = tiny_segmenter(2).train()
    prepare = NoisedMaskPrepareBatch(network, every=2)
    batch = {"image": torch.randn(2, 1, 16, 16), "label": torch.randint(3, (2, 1, 16, 16))}
    assert [bool(prepare(batch)[3]) for _ in range(4)] == [True, False, True, False]
    assert all(p.requires_grad for p in network.parameters())
    with pytest.raises(ValueError, match="anchor_steps must be 0 or more"):
        NoisedMaskPrepareBatch(network, anchor_steps=-1)


def test_a_frozen_module_has_no_gradient_left() -> None:
    layer = torch.nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    freeze(layer)
    assert all(p.grad is None and not p.requires_grad for p in layer.parameters())


def test_the_rate_rises_and_falls_in_each_stage() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    schedule = cosine_stages(optimizer, [100, 0, 50], warmup=10, warmup_factor=0.1)
    rates = []
    for _ in range(160):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.2) and rates[10] == pytest.approx(2.0)
    assert rates[99] < 0.01 and rates[100] == pytest.approx(0.2)
    assert rates[105] == pytest.approx(2.0)  # a tenth of the stage
    assert rates[150] == rates[159] == pytest.approx(0.0)
    assert max(rates) == pytest.approx(2.0)


@pytest.mark.parametrize("stages", [[5, 0], [0, 0], []])
def test_a_denoiser_without_a_step_is_refused(stages: list[int]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with pytest.raises(InputError, match="anchor_steps: leaves the last stage"):
        cosine_stages(optimizer, stages)
