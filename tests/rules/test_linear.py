"""The rule of the linear layer."""

import torch
from torch import nn

from sknetsim._kernels.blocks import DenseBlock
from sknetsim._kernels.factored_blocks import FactorBlock

from .loops import apply_rule, draw_cotangents


def apply_to_linear(X, names=("weight", "bias")):
    layer = nn.Linear(4, 5).double()
    cotangents = draw_cotangents(layer, X)
    (block,), _ = apply_rule(layer, X, cotangents, names)
    return block, cotangents


def test_weight_and_bias_share_one_block_of_factors():
    X = torch.randn(2, 4, dtype=torch.float64)
    block, cotangents = apply_to_linear(X)
    assert isinstance(block, FactorBlock)
    assert torch.equal(block.activations, X[:, None, None])
    assert torch.equal(block.cotangents, cotangents[:, :, None, None])


def test_the_axes_between_samples_and_features_are_positions():
    block, _ = apply_to_linear(torch.randn(2, 3, 2, 4, dtype=torch.float64))
    assert block.positions == 6


def test_a_bias_on_its_own_is_written_out():
    block, _ = apply_to_linear(torch.randn(2, 4, dtype=torch.float64), names=["bias"])
    assert isinstance(block, DenseBlock)
