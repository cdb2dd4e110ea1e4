"""Blocks of positions as matrices: their moments, rotations, squares and scaled gradients."""

import pytest
import torch

from .random_blocks import TRANSPOSED, WINDOWS, make_embedding_block, make_factor_block
from .test_devices import fake_devices, move

pytestmark = pytest.mark.once

__all__ = ["fake_devices"]

MAKERS = {
    "one position": lambda: make_factor_block(4, 1, bias=True),
    "positions": lambda: make_factor_block(4, 3),
    "positions of windows": lambda: make_factor_block(4, 3, bias=True, order=WINDOWS),
    "transposed": lambda: make_factor_block(4, 3, order=TRANSPOSED),
    "embedding": lambda: make_embedding_block(4, 5),
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def write_matrices(block):
    """Return the gradients (n, o, g, j, i), with the bias as a last column."""
    groups, rows, columns = block.matrix_shape
    size = groups * rows * columns
    weight, bias = block.materialize().tensor_split([size], dim=2)
    matrices = block.matrix_order.from_layout(weight).unflatten(2, (groups, rows, columns))
    return torch.cat([matrices, bias.unflatten(2, (groups, rows, -1))], dim=4)


def draw_rotations(block):
    """Return L and R for the matrices of a block, of which R is None for an embedding."""
    groups, rows, columns = block.matrix_shape
    left = torch.randn(groups, rows, rows).double()
    is_diagonal = block.activation_moments().ndim == 2
    return left, None if is_diagonal else torch.randn(groups, columns, columns).double()


@makers
def test_matrices_have_the_bias_as_their_last_column(make):
    block = make()
    torch.testing.assert_close(write_matrices(block.as_matrices("w")), write_matrices(block))


@makers
def test_rotated_gradients_are_products_with_the_rotations(make):
    block = make().as_matrices("w")
    left, right = draw_rotations(block)
    expected = left.mT @ write_matrices(block) @ (torch.eye(7).double() if right is None else right)
    torch.testing.assert_close(write_matrices(block.rotate(left, right)), expected)


@makers
def test_squares_are_summed_over_samples_and_outputs(make):
    block = make().as_matrices("w")
    expected = write_matrices(block).square().sum(dim=(0, 1))
    torch.testing.assert_close(block.sum_squares(), expected)


@makers
def test_each_element_of_the_gradients_is_scaled(make):
    block = make().as_matrices("w")
    factors = torch.rand(block.matrix_shape).double()
    scaled = block.scale(factors).materialize()
    written = block.matrix_order.from_layout(scaled).view(write_matrices(block).shape)
    torch.testing.assert_close(written, write_matrices(block) * factors)


def test_moments_are_sums_over_samples_and_positions():
    block = make_factor_block(4, 3, bias=True).as_matrices("w")
    activations, cotangents = 0.0, 0.0
    for n, t, g in torch.cartesian_prod(torch.arange(4), torch.arange(3), torch.arange(2)):
        chosen = torch.eye(2).double()[g][:, None, None]
        activations += chosen * torch.outer(block.activations[n, t, g], block.activations[n, t, g])
        for cotangent in block.cotangents[n, :, t, g]:
            cotangents += chosen * torch.outer(cotangent, cotangent)
    torch.testing.assert_close(block.activation_moments(), activations)
    torch.testing.assert_close(block.cotangent_moments(), cotangents)


def test_moments_of_tokens_are_their_numbers():
    block = make_embedding_block(4, 5)
    expected = torch.nn.functional.one_hot(block.indices, 7).double().sum(dim=(0, 1))[None]
    torch.testing.assert_close(block.activation_moments(), expected)


@makers
def test_results_stay_on_their_device(make, request):
    block = make().as_matrices("w")
    left, right = draw_rotations(block)
    factors = torch.rand(block.matrix_shape)
    request.getfixturevalue("fake_devices")
    on_gpu = move(block, "cuda")
    # Rotations and factors of a fitted curvature are on the CPU.
    left, factors = move([left, factors], "cpu")
    rotated = on_gpu.rotate(left, None if right is None else move(right, "cpu"))
    results = [
        on_gpu.activation_moments(),
        on_gpu.cotangent_moments(),
        rotated.materialize(),
        rotated.scale(factors).materialize(),
    ]
    assert {result.device.type for result in results} == {"cuda"}
