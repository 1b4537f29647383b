"""The evaluator's step gives what the inferer gives, and the ensemble beside it."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedEvaluator
from torch import Tensor

from medsegdiff.segmentation import EnsembleInferer, ensemble_step
from tests.tiny import tiny_segmenter


@pytest.mark.parametrize("dims", [2, 3])
def test_the_step_is_the_evaluators_own_with_the_ensemble(dims: int) -> None:
    network = tiny_segmenter(dims)
    shape = (16,) * dims
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, *shape, generator=generator)
    raters = torch.randint(0, 2, (1, 3, *shape), generator=generator, dtype=torch.uint8)

    def output(step: object) -> dict[str, Tensor]:
        evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=[{"image": image, "label": raters}],
            network=network,
            inferer=EnsembleInferer(shape, members=4, steps=1),
            iteration_update=step,
            decollate=False,
        )
        evaluator.run(1)
        found: dict[str, Tensor] = evaluator.state.output
        return found

    plain, whole = output(None), output(ensemble_step)
    for key in ("image", "label", "pred"):
        torch.testing.assert_close(whole[key], plain[key])
    assert whole["members"].shape == (1, 4, *shape) and whole["members"].dtype == torch.uint8
    assert torch.equal(whole["raters"], raters)
    inferer = EnsembleInferer(shape, members=4, steps=1)
    alone = inferer.ensemble(image[0], network, "0")
    assert torch.equal(whole["members"][0], alone.labels)
    torch.testing.assert_close(whole["probability"][0], alone.mean)
