"""The networks of several folds as one."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.models.fold_ensemble import FoldEnsemble, joined_weights, networks_of
from medsegdiff.segmentation.sliding_window import EnsembleInferer
from tests.tiny import tiny_segmenter


def of_seed(seed: int) -> DiffusionSegmenter:
    """A tiny network whose weights differ by the seed."""
    network = tiny_segmenter(2)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return network.eval()


def test_members_are_shared_out_over_the_networks() -> None:
    singles = [of_seed(0), of_seed(1)]
    both = FoldEnsemble(of_seed(2), 2)
    both.load_state_dict(joined_weights(one.state_dict() for one in singles))
    image = torch.randn(1, 9, 12)
    inferer = EnsembleInferer([32, 32], members=6, steps=2)
    first, second = (inferer.ensemble(image, one, "case") for one in singles)
    found = inferer.ensemble(image, both.eval(), "case")
    assert not torch.equal(first.labels, second.labels)
    assert torch.equal(found.labels[0::2], first.labels[0::2])
    assert torch.equal(found.labels[1::2], second.labels[1::2])
    assert first.anchor is not None and second.anchor is not None
    torch.testing.assert_close(found.anchor, (first.anchor + second.anchor) / 2)


def test_each_network_encodes_the_image_once_per_mirror_image() -> None:
    both, encoded = FoldEnsemble(of_seed(0), 2), []
    for number, single in enumerate(networks_of(both)):
        single.encoder.register_forward_hook(lambda *_, number=number: encoded.append(number))
    inferer = EnsembleInferer([32, 32], members=8, steps=2, mirror_axes=(0,), member_batch=1)
    inferer.ensemble(torch.randn(1, 9, 12), both.eval(), "case")
    assert sorted(encoded) == [0, 0, 1, 1]


def test_one_fold_is_the_plain_network() -> None:
    plain, image = of_seed(0), torch.randn(1, 9, 12)
    inferer = EnsembleInferer([32, 32], members=5, steps=2, mirror_axes=(0,))
    alone = inferer.ensemble(image, FoldEnsemble(plain, 1), "case")
    assert torch.equal(alone.mean, inferer.ensemble(image, plain, "case").mean)


def test_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="folds must be 1 or more"):
        FoldEnsemble(of_seed(0), 0)
