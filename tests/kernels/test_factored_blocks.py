"""Blocks of activations and cotangents, against loops that form the gradients."""

import pytest
import torch

from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim._kernels.layouts import PLAIN_ORDER

from .random_blocks import (
    GROUPS,
    KERNEL,
    OUT,
    OUTPUTS,
    QUANTITIES,
    TRANSPOSED,
    WIDTH,
    WINDOWS,
    draw,
    make_factor_block,
)


def loop_weight_gradients(block):
    """Add the outer product e a^T of each position, of shape (n, o, g, j, i)."""
    samples, outputs, positions, groups, out = block.cotangents.shape
    gradients = torch.zeros(samples, outputs, groups, out, WIDTH, dtype=torch.float64)
    for n in range(samples):
        for o in range(outputs):
            for t in range(positions):
                for g in range(groups):
                    e, a = block.cotangents[n, o, t, g], block.activations[n, t, g]
                    gradients[n, o, g] += torch.outer(e, a)
    return gradients


@pytest.mark.parametrize("positions", [1, 3])
def test_gradients_of_a_weight_are_sums_of_outer_products(positions):
    block = make_factor_block(2, positions)
    expected = loop_weight_gradients(block).flatten(2)
    torch.testing.assert_close(block.materialize(), expected)


def test_gradients_of_windows_have_the_channels_before_the_kernel():
    block = make_factor_block(2, 3, order=WINDOWS)
    expected = loop_weight_gradients(block).unflatten(-1, (KERNEL, -1)).mT
    torch.testing.assert_close(block.materialize(), expected.flatten(2))


def test_gradients_of_transposed_factors_have_the_input_channels_first():
    block = make_factor_block(2, 3, order=TRANSPOSED)
    torch.testing.assert_close(block.materialize(), loop_weight_gradients(block).mT.flatten(2))


def test_gradients_of_a_bias_are_cotangents_summed_over_positions():
    block = make_factor_block(2, 3, bias=True)
    bias = block.materialize()[:, :, GROUPS * OUT * WIDTH :]
    torch.testing.assert_close(bias, sum(block.cotangents.unbind(2)).flatten(2))


@pytest.mark.parametrize(
    ("order", "bias"),
    [(PLAIN_ORDER, False), (PLAIN_ORDER, True), (WINDOWS, False), (TRANSPOSED, False)],
)
def test_writing_out_keeps_the_gradients(order, bias):
    block = make_factor_block(2, 3, bias=bias, order=order)
    torch.testing.assert_close(block.written().materialize(), block.materialize())


def make_single_group_block(samples, bias):
    """Return the block of a linear layer: one position and one group."""
    layout = (("weight", torch.Size([OUT, WIDTH])), ("bias", torch.Size([OUT])))
    cotangents = torch.randn(samples, OUTPUTS, 1, 1, OUT, dtype=torch.float64)
    activations = torch.randn(samples, 1, 1, WIDTH, dtype=torch.float64)
    return FactorBlock(layout[: 1 + bias], cotangents, activations)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_linear_layer_at_one_position_equals_its_gradients_written_out(quantity, bias):
    block, other, *arguments = draw(lambda samples: make_single_group_block(samples, bias))
    value = QUANTITIES[quantity](block, other, *arguments)
    expected = QUANTITIES[quantity](block.dense(), other.dense(), *arguments)
    torch.testing.assert_close(value, expected)


def test_blocks_of_different_widths_are_of_different_forms():
    block = make_factor_block(2, 3)
    narrow = FactorBlock(block.layout, block.cotangents, block.activations[..., 1:])
    assert block._form() != narrow._form()
    assert block._form() == make_factor_block(5, 2)._form()
