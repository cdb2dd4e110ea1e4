"""The rule of transposed convolutions."""

import torch
from torch import nn

from .loops import apply_rule, draw_cotangents, loop_gradients


def test_the_positions_are_those_of_the_input():
    layer = nn.ConvTranspose2d(2, 3, 2, stride=2).double()
    X = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    (weight, _), _ = apply_rule(layer, X, draw_cotangents(layer, X), ["weight", "bias"])
    assert weight.positions == 12
    assert torch.equal(weight.activations[:, :, 0], X.flatten(2).mT)


def test_windows_that_an_output_padding_adds_are_left_out():
    """With a dilation above the stride, the output has room for one more window."""
    layer = nn.ConvTranspose1d(2, 3, 2, stride=1, dilation=2, output_padding=1).double()
    X = torch.randn(2, 2, 4, dtype=torch.float64)
    cotangents = draw_cotangents(layer, X)
    (weight,), gradients = apply_rule(layer, X, cotangents, ["weight"])
    assert weight.positions == 4
    expected = loop_gradients(layer, X, cotangents, "weight")
    torch.testing.assert_close(gradients["weight"], expected)
