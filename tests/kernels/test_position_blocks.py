"""Blocks with positions: products over pairs of positions, and the choice of the cheaper form."""

import pytest
import torch

from sknetsim._kernels import position_blocks
from sknetsim._kernels.blocks import DenseBlock
from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim._kernels.positions import multiply_positions, weight_cotangents

from .random_blocks import QUANTITIES, draw, kinds, make_embedding_block, make_factor_block


@pytest.mark.parametrize("quantity", ["gram", "trace_gram"])
@kinds
def test_small_temporaries_do_not_change_grams(make, quantity, monkeypatch):
    drawn = draw(make)
    expected = QUANTITIES[quantity](*drawn)
    monkeypatch.setattr(position_blocks, "_PAIR_ELEMENTS", 1)
    torch.testing.assert_close(QUANTITIES[quantity](*drawn), expected)


def test_no_temporary_exceeds_its_limit(monkeypatch):
    sizes = []

    def multiply(*args):
        products = multiply_positions(*args)
        sizes.append(products.numel())
        return products

    monkeypatch.setattr(position_blocks, "multiply_positions", multiply)
    monkeypatch.setattr(position_blocks, "_PAIR_ELEMENTS", 3000)
    block, other = make_factor_block(8, 3), make_factor_block(5, 4)
    block.gram(other)
    # Two samples at a time, of shape (outputs, positions, groups, 5 samples, outputs, positions).
    assert sizes == [2 * 3 * 3 * 2 * 5 * 3 * 4] * 4


def define_position_products(block, other, constant):
    """Loop over samples and pairs of positions."""
    samples, _, positions = block.cotangents.shape[:3]
    products = torch.zeros(samples, positions, other.cotangents.shape[2], dtype=torch.float64)
    for n, t, s in torch.cartesian_prod(*map(torch.arange, products.shape)):
        activations = (block.activations[n, t] * other.activations[n, s]).sum(-1) + constant
        cotangents = (block.cotangents[n, :, t] * other.cotangents[n, :, s]).sum((0, 2))
        products[n, t, s] = (activations * cotangents).sum()
    return products


@pytest.mark.parametrize("bias", [False, True])
def test_position_products_equal_a_loop_over_pairs_of_positions(bias):
    block, other = make_factor_block(4, 3, bias=bias), make_factor_block(4, 2, bias=bias)
    expected = define_position_products(block, other, float(bias))
    torch.testing.assert_close(block.paired_positions(other), expected)


def test_position_products_of_embeddings_pair_equal_tokens():
    block, other = make_embedding_block(4, 3), make_embedding_block(4, 2)
    products = block.paired_positions(other)
    for n, t, s in torch.cartesian_prod(*map(torch.arange, products.shape)):
        equal = block.indices[n, t] == other.indices[n, s]
        cotangents = (block.cotangents[n, :, t] * other.cotangents[n, :, s]).sum()
        torch.testing.assert_close(products[n, t, s], equal * cotangents)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_multiply_positions_equals_the_einsum(constant):
    vectors = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    others = torch.randn(3, 2, 5, 5, 6, dtype=torch.float64)
    expected = torch.einsum("notgj,mpsgj->notmpsg", vectors, others) + constant
    torch.testing.assert_close(multiply_positions(vectors, others, constant), expected)


@pytest.mark.parametrize(("outputs", "vectors"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_weight_cotangents_equals_the_einsum(outputs, vectors):
    cotangents = torch.randn(2, outputs, 4, 5, 6, dtype=torch.float64)
    weights = torch.randn(2, outputs, vectors, dtype=torch.float64)
    expected = torch.einsum("noq,notgj->gntqj", weights, cotangents)
    expected = expected.flatten(3).flatten(1, 2)
    torch.testing.assert_close(weight_cotangents(cotangents, weights), expected)


def make_wide_block(positions, out, width):
    """Return a block with one output and one group."""
    layout = (("weight", torch.Size([out, width])),)
    cotangents = torch.randn(2, 1, positions, 1, out)
    return FactorBlock(layout, cotangents, torch.randn(2, positions, 1, width))


FORMS = ["for_pairs", "for_sums"]


@pytest.mark.parametrize("form", FORMS)
def test_few_positions_and_a_large_weight_stay_in_factors(form):
    block = make_wide_block(positions=1, out=100, width=100)
    assert getattr(block, form)() is block


@pytest.mark.parametrize("form", FORMS)
def test_many_positions_and_a_small_weight_are_written_out(form):
    block = make_wide_block(positions=100, out=3, width=3)
    assert isinstance(getattr(block, form)(), DenseBlock)


def test_the_number_of_positions_is_that_of_the_cotangents():
    assert make_factor_block(4, 3).positions == 3


def make_several_outputs(activations):
    """Return a block in float32 with three outputs and few positions, and its gradients."""
    samples, positions, _, width = activations.shape
    cotangents = torch.randn(samples, 3, positions, 1, 40)
    layout = (("weight", torch.Size([40, width])), ("bias", torch.Size([40])))
    return FactorBlock(layout, cotangents, activations)


def relative_error_of_self_kernel(block):
    """Return the largest error of an element, relative to the lengths of both gradients."""
    J = block.double().materialize()
    lengths = torch.linalg.vector_norm(J, dim=2)
    error = (block.self_kernel() - J @ J.mT).abs()
    return float((error / (lengths[:, :, None] * lengths[:, None])).max())


@pytest.mark.parametrize(
    "activations",
    [
        torch.randn(4, 5, 1, 30),
        torch.randn(4, 1, 1, 30).expand(4, 5, 1, 30),
        torch.zeros(4, 5, 1, 30),
        torch.randn(4, 5, 1, 3),
        1e12 * torch.randn(4, 5, 1, 30),
    ],
    ids=["different", "equal", "zero", "more positions than channels", "large"],
)
def test_self_kernels_of_several_outputs_are_exact_in_float32(activations):
    block = make_several_outputs(activations)
    assert block._count_paired_operations() <= block._count_written_operations()
    assert relative_error_of_self_kernel(block) < 1e-6


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_self_kernel_is_exact_if_the_terms_of_the_gradients_cancel(outputs):
    # The gradient is .001 of each of its terms.
    activations = torch.randn(4, 1, 1, 30) + 1e-3 * torch.randn(4, 2, 1, 30)
    cotangents = torch.randn(4, outputs, 1, 1, 40) * torch.tensor([1.0, -1.0])[:, None, None]
    block = FactorBlock((("weight", torch.Size([40, 30])),), cotangents, activations)
    assert block._count_paired_operations() <= block._count_written_operations()
    assert relative_error_of_self_kernel(block) < 1e-8


def test_samples_whose_gradients_are_nan_have_self_kernels_that_are_nan():
    block = make_several_outputs(torch.randn(2, 5, 1, 30))
    block.activations[1, 2, 0, 3] = float("nan")
    assert torch.isnan(block.self_kernel()).flatten(1).any(dim=1).tolist() == [False, True]
