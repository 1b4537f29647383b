"""Perceptrons of an ensemble: each alone, and all in one product."""

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.few_label.voxel_mlps import VoxelMLPs


def one_by_one(mlps: VoxelMLPs, member: int, features: Tensor) -> Tensor:
    """A member written out layer by layer."""
    x = (features - mlps.mean) / mlps.deviation
    for number, (weight, bias) in enumerate(zip(mlps.weights, mlps.biases, strict=True)):
        x = x @ weight[member] + bias[member]
        if number < len(mlps.weights) - 1:
            x = F.relu(F.layer_norm(x, x.shape[-1:]))
    return x


def test_all_members_answer_as_each_would_alone() -> None:
    torch.manual_seed(0)
    mlps = VoxelMLPs(5, 3, members=4, hidden=(7, 6)).eval()
    features = 3.0 + 2.0 * torch.randn(11, 5)
    mlps.standardise(features)
    wanted = torch.stack([one_by_one(mlps, m, features) for m in range(4)])
    torch.testing.assert_close(mlps(features), wanted)
    torch.testing.assert_close(mlps.of_each(features.expand(4, -1, -1)), wanted)
    assert not torch.allclose(wanted[0], wanted[1])


def test_standardised_features_have_no_unit() -> None:
    torch.manual_seed(0)
    mlps = VoxelMLPs(5, 3).eval()
    features = torch.randn(50, 5)
    mlps.standardise(features)
    before = mlps(features)
    mlps.standardise(1000.0 * features - 7.0)
    torch.testing.assert_close(mlps(1000.0 * features - 7.0), before, atol=1e-3, rtol=1e-3)


def test_a_feature_that_is_always_the_same_does_no_harm() -> None:
    mlps = VoxelMLPs(2, 2).eval()
    features = torch.stack([torch.randn(20), torch.full((20,), 4.0)], dim=1)
    mlps.standardise(features)
    assert mlps(features).isfinite().all()


def test_each_member_has_dropout_of_its_own() -> None:
    torch.manual_seed(0)
    mlps = VoxelMLPs(8, 2, members=2, dropout=0.5).train()
    with torch.no_grad():
        for parameter in (*mlps.weights, *mlps.biases):
            parameter.copy_(parameter[:1].expand_as(parameter))
    one, other = mlps.of_each(torch.randn(1, 30, 8).expand(2, -1, -1))
    assert not torch.allclose(one, other)
    one, other = mlps.eval().of_each(torch.randn(1, 30, 8).expand(2, -1, -1))
    torch.testing.assert_close(one, other)
