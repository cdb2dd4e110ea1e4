"""The rule of convolutions: padding, and windows of their inputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sknetsim._kernels.blocks import DenseBlock, split_by_parameter
from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim.rules.convolution import (
    _flatten_windows,
    _pad,
    convolution,
    convolution_for_sums,
)

from .loops import apply_rule, draw_cotangents


@pytest.mark.parametrize("padding", [(1, 2), 1, "same", "valid"])
def test_a_convolution_of_the_padded_inputs_needs_no_padding(padding):
    X, weight = torch.randn(2, 2, 7, 8), torch.randn(3, 2, 4, 3)
    expected = functional.conv2d(X, weight, padding=padding, dilation=(1, 2))
    padded = _pad(X, padding, (4, 3), (1, 2))
    torch.testing.assert_close(functional.conv2d(padded, weight, dilation=(1, 2)), expected)


@pytest.mark.parametrize("shape", [(2, 9, 2, 3), (2, 3, 4, 9), (2, 3, 4, 2, 3, 5)])
def test_windows_are_flattened_to_positions_and_columns(shape):
    """Shapes are (n, positions..., kernel..., channels), with long and with short lines."""
    dimensions = (len(shape) - 2) // 2
    windows = torch.randn(shape)
    flat = windows.reshape(shape[0], torch.Size(shape[1 : 1 + dimensions]).numel(), -1)
    assert torch.equal(_flatten_windows(windows, dimensions), flat)


def apply_to_convolution(layer, X, names=("weight", "bias")):
    layer = layer.double()
    return apply_rule(layer, X, draw_cotangents(layer, X), names)[0]


def test_the_activations_are_the_unfolded_inputs():
    X = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    (weight,) = apply_to_convolution(nn.Conv2d(3, 4, (2, 3), padding=1, stride=2), X)
    unfolded = functional.unfold(X, (2, 3), padding=1, stride=2)
    # unfold has the channels before the kernel: (n, (c k), t) -> (n, t, (k c)).
    expected = unfolded.unflatten(1, (3, 6)).transpose(1, 2).flatten(1, 2).mT
    assert isinstance(weight, FactorBlock)
    assert torch.equal(weight.activations[:, :, 0], expected)


def test_each_group_sees_its_own_channels():
    X = torch.randn(2, 4, 1, dtype=torch.float64)
    (weight,) = apply_to_convolution(nn.Conv1d(4, 6, 1, groups=2), X)
    assert torch.equal(weight.activations[:, :, 0], X[:, :2].mT)
    assert torch.equal(weight.activations[:, :, 1], X[:, 2:].mT)


DEPTHWISE = {
    "1d": ((4, 9), (4, 1, 3), {"groups": 4, "padding": "same"}),
    "2d": ((4, 7, 6), (4, 1, 3, 2), {"groups": 4, "stride": (2, 1), "padding": 1}),
    "2d with an even kernel": ((3, 6, 6), (3, 1, 2, 2), {"groups": 3, "padding": "same"}),
    "3d": ((2, 4, 5, 4), (2, 1, 2, 3, 1), {"groups": 2, "dilation": (2, 1, 1)}),
}


@pytest.mark.parametrize("case", DEPTHWISE.values(), ids=DEPTHWISE)
def test_gradients_of_depthwise_convolutions_are_written_out_for_sums(case):
    """Each sample has two images."""
    shape, kernel, options = case
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(3, 2, *shape, generator=generator, dtype=torch.float64)
    arguments = {"input": X, "weight": torch.zeros(kernel).double(), **options}
    function = getattr(functional, f"conv{len(kernel) - 2}d")
    output_shape = function(X.flatten(0, 1), arguments["weight"], **options).shape[1:]
    cotangents = torch.randn(3, 5, 2, *output_shape, generator=generator, dtype=torch.float64)
    (written,) = convolution_for_sums(arguments, cotangents, ("weight",))
    (factors,) = convolution(arguments, cotangents, ("weight",))
    assert isinstance(written, DenseBlock) and isinstance(factors, FactorBlock)
    torch.testing.assert_close(written.materialize(), factors.materialize())


def test_gradients_of_groups_that_are_larger_than_their_factors_are_not_written_out():
    X, weight = torch.randn(2, 1, 8, 3), torch.randn(16, 4, 2)
    arguments = {"input": X, "weight": weight, "groups": 2}
    (block,) = convolution_for_sums(arguments, torch.randn(2, 1, 1, 16, 2), ("weight",))
    assert isinstance(block, FactorBlock)


@pytest.mark.parametrize("names", [("weight", "bias"), ("bias", "weight"), ("weight",), ("bias",)])
def test_weight_and_bias_have_a_block_each_for_sums(names):
    """Their factors share the cotangents, and are in one block."""
    X, weight, bias = torch.randn(2, 1, 3, 6), torch.randn(4, 3, 2), torch.randn(4)
    arguments = {"input": X, "weight": weight, "bias": bias}
    cotangents = torch.randn(2, 3, 1, 4, 5)
    separate = convolution_for_sums(arguments, cotangents, names)
    assert [name for block in separate for name, _ in block.layout] == list(names)
    (block,) = convolution(arguments, cotangents, names)
    split = {part.layout: part for part in split_by_parameter(block)}
    for part in separate:
        torch.testing.assert_close(part.materialize(), split[part.layout].materialize())


def test_images_without_samples_are_not_covered():
    X, weight = torch.randn(2, 1, 6), torch.randn(4, 1, 2)
    arguments = {"input": X, "weight": weight}
    for rule in (convolution, convolution_for_sums):
        assert rule(arguments, torch.randn(2, 3, 4, 5), ("weight",)) is NotImplemented
