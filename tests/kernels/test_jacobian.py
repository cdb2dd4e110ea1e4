"""Quantities of Jacobians against the definitions, from Jacobians written out."""

import numpy as np
import pytest
import torch

from sknetsim import UnsupportedNetworkError
from sknetsim._kernels import jacobian as jacobian_module
from sknetsim._kernels.blocks import DenseBlock
from sknetsim._kernels.jacobian import Jacobian, concatenate_jacobians
from sknetsim._kernels.whitening import WHITENINGS

from .. import naive
from .random_blocks import (
    GROUPS,
    OUT,
    OUTPUTS,
    WIDTH,
    make_dense_block,
    make_factor_block,
    make_fourier_map,
)

EPS = torch.finfo(torch.float64).eps
SHAPES = {"weight": (GROUPS * OUT, WIDTH), "bias": (GROUPS * OUT,), "scale": (2, 3), "unused": (5,)}
LAYOUT = tuple((name, torch.Size(shape)) for name, shape in SHAPES.items())


def make_jacobian(samples, seed=0):
    """Return a Jacobian of a block of factors, a dense block, and a parameter without a block."""
    torch.manual_seed(seed)
    factors = make_factor_block(samples, 3, bias=True)
    scale = DenseBlock(LAYOUT[2:3], make_dense_block(samples, [2, 3]).gradients)
    blocks = {("weight", "bias"): factors, ("scale",): scale}
    return Jacobian(blocks, LAYOUT, torch.randn(samples, OUTPUTS, dtype=torch.float64))


def split_blocks(jacobian):
    """Return the same Jacobian with one block for each parameter."""
    blocks = jacobian._split_by_parameter(jacobian.blocks)
    return Jacobian(blocks, jacobian.layout, jacobian.outputs)


@pytest.fixture
def pair():
    return make_jacobian(4, seed=0), make_jacobian(5, seed=1)


def write_out(jacobian):
    return jacobian.materialize().numpy()


def split_by_name(vectors):
    sizes = [shape.numel() for _, shape in LAYOUT]
    return dict(zip(SHAPES, vectors.split(sizes, dim=1), strict=True))


def test_a_parameter_without_a_block_has_zero_gradients(pair):
    assert pair[0].materialize().shape == (4, OUTPUTS, pair[0].width // OUTPUTS)
    assert not pair[0].materialize()[:, :, -5:].any()


def test_the_length_is_the_number_of_samples(pair):
    assert [len(jacobian) for jacobian in pair] == [4, 5]


def test_the_bytes_are_those_of_the_blocks(pair):
    assert pair[0].nbytes == sum(block.nbytes for block in pair[0].blocks.values())


def test_the_self_kernel_is_the_naive_one(pair):
    J = write_out(pair[0])
    expected = np.einsum("nop,nqp->noq", J, J)
    np.testing.assert_allclose(pair[0].self_kernel(), expected, atol=1e-10)


def test_the_gram_is_the_naive_kernel(pair):
    expected = naive.kernel(*map(write_out, pair))
    np.testing.assert_allclose(pair[0].gram(pair[1]), expected, atol=1e-10)


def test_the_trace_gram_is_the_trace_of_the_naive_kernel(pair):
    expected = np.einsum("nmoo->nm", naive.kernel(*map(write_out, pair)))
    np.testing.assert_allclose(pair[0].trace_gram(pair[1]), expected, atol=1e-10)


@pytest.mark.parametrize("piece", [1, 2**23])
def test_paired_traces_are_entries_of_the_trace_gram(pair, piece, monkeypatch):
    monkeypatch.setattr(jacobian_module, "_PAIRED_BYTES", piece)
    rows, columns = torch.tensor([0, 3, 3]), torch.tensor([4, 0, 1])
    expected = pair[0].trace_gram(pair[1])[rows, columns]
    torch.testing.assert_close(pair[0].paired(pair[1], rows, columns), expected)


@pytest.mark.parametrize("piece", [1, 2**23])
@pytest.mark.parametrize("by_rows", [False, True])
def test_marginals_are_sums_of_products_of_entries(pair, piece, by_rows, monkeypatch):
    monkeypatch.setattr(jacobian_module, "_PAIRED_BYTES", piece)
    first, second = pair[0], pair[1].rows(slice(0, 4))
    requested = {name: by_rows and len(shape) > 1 for name, shape in SHAPES.items()}
    marginals = first.marginals(second, requested)
    products = split_by_name((first.materialize() * second.materialize()).sum(dim=1))
    assert marginals.keys() == {"weight", "bias", "scale"}
    for name, values in marginals.items():
        table = products[name].view(4, SHAPES[name][0], -1)
        expected = table.sum(dim=2 if requested[name] else 1)
        torch.testing.assert_close(values, expected)


def test_cosines_of_whitened_jacobians_are_the_naive_correlation(pair):
    whitened = []
    for jacobian in pair:
        roots = WHITENINGS["unit"](*jacobian.roots(jacobian.self_kernel())[:2])
        whitened.append(jacobian.whiten(roots))
    expected = naive.correlation(*map(write_out, pair), EPS)
    np.testing.assert_allclose(whitened[0].cosines(whitened[1]), expected, atol=1e-10)


def test_cosines_stay_in_range_in_spite_of_rounding():
    gradients = torch.full((1, 1, 1), 1 + 1e-9, dtype=torch.float64)
    layout = (("scale", torch.Size([1])),)
    outputs = torch.zeros(1, 1, dtype=torch.float64)
    first = Jacobian({("scale",): DenseBlock(layout, gradients)}, layout, outputs)
    second = Jacobian({("scale",): DenseBlock(layout, -gradients)}, layout, outputs)
    assert first.cosines(first).item() == 1
    assert first.cosines(second).item() == -1


def test_whitening_multiplies_the_outputs_by_the_root(pair):
    root = torch.randn(4, OUTPUTS, OUTPUTS, dtype=torch.float64)
    expected = root @ pair[0].materialize()
    torch.testing.assert_close(pair[0].whiten(root).materialize(), expected)


def test_a_weighted_sum_is_the_naive_one(pair):
    weights = torch.randn(4, OUTPUTS, 2, dtype=torch.float64)
    expected = split_by_name(torch.einsum("noq,nop->qp", weights, pair[0].materialize()))
    sums = pair[0].weighted_sum(weights)
    assert sums.keys() == {"weight", "bias", "scale"}
    for name, values in sums.items():
        torch.testing.assert_close(values, expected[name])


def test_weighted_sums_are_added_to_a_total(pair):
    weights = torch.randn(4, OUTPUTS, 2, dtype=torch.float64)
    expected = {name: 2 * values for name, values in pair[0].weighted_sum(weights).items()}
    total = {}
    for _ in range(2):
        pair[0].weighted_sum(weights, total)
    torch.testing.assert_close(total, expected)


def test_inner_is_the_sum_of_products_with_one_vector_per_output(pair):
    vectors = torch.randn(OUTPUTS, pair[0].width // OUTPUTS, dtype=torch.float64)
    expected = torch.einsum("nop,op->n", pair[0].materialize(), vectors)
    torch.testing.assert_close(pair[0].inner(split_by_name(vectors)), expected)


def test_product_multiplies_each_output_by_each_vector(pair):
    vectors = torch.randn(2, pair[0].width // OUTPUTS, dtype=torch.float64)
    expected = torch.einsum("nop,qp->noq", pair[0].materialize(), vectors)
    torch.testing.assert_close(pair[0].product(split_by_name(vectors)), expected)


@pytest.mark.parametrize("name", ["weight", "scale"])
def test_parameters_without_vectors_count_as_zero(pair, name):
    vectors = torch.randn(OUTPUTS, pair[0].width // OUTPUTS, dtype=torch.float64)
    parts = split_by_name(vectors)
    zeros = {other: part * (other == name) for other, part in parts.items()}
    one = {name: parts[name]}
    torch.testing.assert_close(pair[0].inner(one), pair[0].inner(zeros))
    torch.testing.assert_close(pair[0].product(one), pair[0].product(zeros))


def test_a_sketch_is_the_sum_of_the_sketches_of_the_parameters(pair):
    maps = {name: make_fourier_map(shape) for name, shape in LAYOUT}
    dense = DenseBlock(LAYOUT, pair[0].materialize())
    torch.testing.assert_close(pair[0].sketch(maps), dense.sketch(list(maps.values())))


def test_jacobians_that_group_parameters_differently_can_be_compared(pair):
    first, second = pair
    torch.testing.assert_close(first.gram(split_blocks(second)), first.gram(second))
    torch.testing.assert_close(split_blocks(first).trace_gram(second), first.trace_gram(second))


def test_a_parameter_without_a_block_on_one_side_contributes_nothing(pair):
    first, second = pair
    blocks = {("scale",): second.blocks["scale",]}
    partial = Jacobian(blocks, second.layout, second.outputs)
    expected = torch.einsum("nop,mop->nm", first.materialize(), partial.materialize())
    torch.testing.assert_close(first.trace_gram(partial), expected)


@pytest.mark.parametrize("form", ["for_sums", "for_pairs"])
def test_each_form_has_the_same_gradients(pair, form):
    converted = getattr(pair[0], form)()
    torch.testing.assert_close(converted.materialize(), pair[0].materialize())


def test_taken_samples_keep_their_gradients_and_outputs(pair):
    taken = pair[0].rows(torch.tensor([2, 0]))
    torch.testing.assert_close(taken.materialize(), pair[0].materialize()[[2, 0]])
    torch.testing.assert_close(taken.outputs, pair[0].outputs[[2, 0]])


def test_split_jacobians_are_concatenated_to_the_whole(pair):
    parts = pair[0].split([1, 3])
    assert [len(part) for part in parts] == [1, 3]
    joined = concatenate_jacobians(parts)
    torch.testing.assert_close(joined.materialize(), pair[0].materialize())
    torch.testing.assert_close(joined.outputs, pair[0].outputs)


def test_jacobians_that_group_parameters_differently_can_be_concatenated(pair):
    joined = concatenate_jacobians([pair[0], split_blocks(pair[1])])
    expected = torch.cat([jacobian.materialize() for jacobian in pair])
    torch.testing.assert_close(joined.materialize(), expected)


def test_a_single_jacobian_is_concatenated_without_a_copy(pair):
    assert concatenate_jacobians(pair[:1]) is pair[0]


@pytest.mark.parametrize("magnitude", [1e-25, 1e-17, 1.0, 1e17, 1e25])
def test_self_kernels_of_float32_gradients_may_leave_the_range_of_float32(magnitude):
    gradients = magnitude * torch.rand(40, 2, 6, generator=torch.Generator().manual_seed(0))
    layout = (("scale", torch.Size([6])),)
    jacobian = Jacobian({("scale",): DenseBlock(layout, gradients)}, layout, gradients[:, :, 0])
    J = gradients.double()
    expected = torch.einsum("nop,nqp->noq", J, J)
    torch.testing.assert_close(jacobian.self_kernel(), expected, rtol=1e-5, atol=0)


def test_the_number_of_samples_with_infinite_gradients_is_in_the_error(pair):
    kernel = pair[0].self_kernel()
    kernel[1, 0, 0], kernel[3, 1, 2] = torch.nan, torch.inf
    with pytest.raises(UnsupportedNetworkError, match="NaN or infinite at 2 of 4 samples"):
        pair[0].roots(kernel)
