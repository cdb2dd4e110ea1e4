"""Sums over pairs: both ways against a double loop."""

import pytest
import torch
from torch import nn

from sknetsim.losses import GroupSimilarityLoss
from sknetsim.losses._differentiable import DifferentiableEngine
from sknetsim.losses._sums import multiply_pairs, multiply_sums, squared_length, sum_over_pairs

SIZES = [2, 3, 1]


class _Recurrent(nn.LSTM):
    def forward(self, sequences):
        return super().forward(sequences)[0][:, -1]


def make_convolutions():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.PReLU(), nn.Flatten(), nn.Linear(18, 2))


NETWORKS = {
    "convolution": (make_convolutions, (1, 5, 5)),
    "recurrent": (lambda: _Recurrent(3, 2, batch_first=True), (4, 3)),
}
networks = pytest.mark.parametrize("name", NETWORKS)
ways = pytest.mark.parametrize("multiply", [multiply_pairs, multiply_sums, sum_over_pairs])


def compute_jacobian(name):
    """Return the Jacobians of six samples with two outputs, and matrices that whiten them."""
    make_network, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = make_network().double()
    jacobian = DifferentiableEngine("all", None).jacobian(
        network, torch.randn(6, *shape, dtype=torch.float64)
    )
    return jacobian, torch.randn(6, 2, 2, dtype=torch.float64)


@networks
@ways
def test_sums_are_those_of_a_double_loop(name, multiply):
    jacobian, root = compute_jacobian(name)
    gradients = (root @ jacobian.materialize()).flatten(1)
    gram, groups = gradients @ gradients.mT, torch.arange(3).repeat_interleave(torch.tensor(SIZES))
    expected = gram[groups[:, None] == groups].sum(), gram.sum()
    torch.testing.assert_close(multiply(jacobian, root, SIZES), expected)


def test_pairs_are_preferred_if_samples_are_fewer_than_elements_of_a_weight():
    jacobians = [
        DifferentiableEngine("all", None).jacobian(nn.Linear(width, 2), torch.randn(count, width))
        for width, count in ((200, 8), (2, 400))
    ]
    preferences = [
        block.prefers_pairs(4) for jacobian in jacobians for block in jacobian.blocks.values()
    ]
    assert preferences == [True, False]


def test_pairs_whose_products_leave_the_range_of_float32_are_exact():
    torch.manual_seed(0)
    network, X = nn.Linear(200, 2, bias=False), torch.randn(6, 200)
    similarities = [
        GroupSimilarityLoss().similarities(network, scale * X, [0, 0, 0, 1, 1, 2]).same.item()
        for scale in (1, 2.0**70)
    ]
    assert similarities[1] == pytest.approx(similarities[0], rel=1e-6)


def test_squared_lengths_are_summed_over_parameters():
    vectors = {"a": torch.tensor([[3.0, 4.0]]), "b": torch.tensor([[1.0], [2.0]])}
    assert squared_length(vectors).item() == 30
