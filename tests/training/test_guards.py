"""A loss that is not finite must not reach the weights."""

import pytest
import torch
from monai.engines import SupervisedTrainer

from medsegdiff.training.guards import stop_on_non_finite_loss
from medsegdiff.types import InputError


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_stay_those_of_the_last_good_step(bad: float) -> None:
    network = torch.nn.Linear(1, 1)
    losses = iter([1.0, 1.0, bad, 1.0])
    seen: list[torch.Tensor] = []

    def loss(pred: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.append(network.weight.detach().clone())
        return pred.mean() * next(losses)

    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}] * 4,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=loss,
        decollate=False,
    )
    stop_on_non_finite_loss(trainer)
    with pytest.raises(InputError, match=r"epoch 1, iteration 3.*learning_rate"):
        trainer.run()
    assert torch.equal(network.weight, seen[-1]) and not torch.equal(seen[0], seen[-1])
