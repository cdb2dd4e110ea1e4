"""Windows, positions and blocks that several rules share."""

import itertools

import pytest
import torch

from sknetsim._kernels.blocks import DenseBlock
from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim.rules._factors import (
    crop,
    extract_windows,
    make_bias_block,
    make_factor_block,
    move_positions_first,
)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"),
    [((3, 2), (1, 1), (1, 1)), ((3, 2), (2, 1), (1, 1)), ((2, 2), (1, 2), (3, 2))],
)
def test_windows_equal_a_loop_over_positions(kernel_size, stride, dilation):
    images = torch.randn(2, 3, 7, 6)
    windows = extract_windows(images, kernel_size, stride, dilation)
    axes = list(zip(images.shape[2:], kernel_size, stride, dilation, strict=True))
    counts = [(size - gap * (width - 1) - 1) // step + 1 for size, width, step, gap in axes]
    assert windows.shape == (2, 3, *counts, *kernel_size)
    for y, x in itertools.product(*map(range, counts)):
        rows = [y * stride[0] + k * dilation[0] for k in range(kernel_size[0])]
        columns = [x * stride[1] + k * dilation[1] for k in range(kernel_size[1])]
        assert torch.equal(windows[:, :, y, x], images[:, :, rows][:, :, :, columns])


def test_windows_are_a_view_of_the_images():
    images = torch.randn(2, 3, 7)
    assert extract_windows(images, [3], [1], [1]).data_ptr() == images.data_ptr()


def test_cropping_keeps_the_beginning_of_the_last_axes():
    images = torch.randn(2, 3, 7, 6)
    assert torch.equal(crop(images, [4, 5]), images[:, :, :4, :5])


def test_positions_of_all_images_of_a_sample_come_before_channels():
    images = torch.randn(2, 3, 6, 4, 5)
    moved = move_positions_first(images, 2)
    assert moved.shape == (2, 60, 6)
    assert torch.equal(moved[:, 27], images[:, 1, :, 1, 2])


@pytest.mark.parametrize("names", [("weight",), ("weight", "bias")])
def test_a_weight_is_kept_in_factors(names):
    factors = torch.randn(2, 4, 1, 3), torch.randn(2, 5, 4, 1, 6)
    arguments = {"weight": torch.randn(6, 3), "bias": torch.randn(6)}
    block = make_factor_block(arguments, *factors, names)
    assert isinstance(block, FactorBlock)
    assert [name for name, _ in block.layout] == list(names)


def test_the_gradient_of_a_bias_is_summed_over_positions():
    cotangents = torch.randn(2, 5, 4, 6)
    block = make_bias_block({"bias": torch.randn(6)}, "bias", cotangents)
    assert isinstance(block, DenseBlock)
    torch.testing.assert_close(block.materialize(), cotangents.sum(dim=2))
