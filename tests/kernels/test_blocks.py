"""Quantities of blocks against the definitions, from gradients written out."""

import pytest
import torch

from sknetsim._kernels.blocks import (
    DenseBlock,
    add_blocks,
    concatenate_blocks,
    concatenate_tensors,
    squared_norms,
)

from .random_blocks import (
    KINDS,
    OUTPUTS,
    QUANTITIES,
    draw,
    kinds,
    make_dense_block,
    make_embedding_block,
    make_factor_block,
)


def define_marginals(J, other, layout, by_rows):
    """Sum J[n,o,r,c] J'[n,o,r,c] over outputs and rows, or over outputs and columns."""
    products, marginals, start = J * other, [], 0
    for (_, shape), rows in zip(layout, by_rows, strict=True):
        count = shape[0] if shape else 1
        part = products[:, :, start : start + shape.numel()]
        part = part.reshape(*part.shape[:2], count, -1)
        marginals.append(part.sum(dim=(1, 3) if rows else (1, 2)))
        start += shape.numel()
    return torch.cat(marginals, dim=1)


def define_sketch(J, layout, maps):
    """Multiply each entry of the gradients by the map, one by one."""
    sketch, entry = torch.zeros(len(J), maps[0].rows.shape[1], dtype=torch.complex128), 0
    for fourier in maps:
        for row in fourier.rows:
            for column in fourier.columns:
                phases = fourier.outputs * row * column
                sketch += J[:, :, entry].to(phases) @ phases
                entry += 1
    return sketch


#: Each quantity by its definition, from the gradients J (n, o, w) and J2 (m, o, w).
DEFINITIONS = {
    "gram": lambda J, J2, *_: torch.einsum("now,mpw->nmop", J, J2),
    "trace_gram": lambda J, J2, *_: torch.einsum("now,mow->nm", J, J2),
    "paired": lambda J, J2, *_: torch.einsum("now,now->n", J, J2[:4]),
    "marginals by rows": lambda J, J2, layout, *_: define_marginals(
        J, J2[:4], layout, [len(shape) > 1 for _, shape in layout]
    ),
    "marginals by columns": lambda J, J2, layout, *_: define_marginals(
        J, J2[:4], layout, [False] * len(layout)
    ),
    "sketch": lambda J, J2, layout, root, weights, vectors, maps: define_sketch(J, layout, maps),
    "self_kernel": lambda J, *_: torch.einsum("now,npw->nop", J, J),
    "whiten": lambda J, J2, layout, root, *_: torch.einsum("nop,npw->now", root, J),
    "weighted_sum": lambda J, J2, layout, root, weights, *_: torch.einsum(
        "noq,now->qw", weights, J
    ),
    "inner": lambda J, J2, layout, root, weights, vectors, maps: torch.einsum(
        "now,ow->n", J, vectors
    ),
    "product": lambda J, J2, layout, root, weights, vectors, maps: torch.einsum(
        "now,qw->noq", J, vectors[:2]
    ),
    "concatenate_blocks": lambda J, J2, *_: torch.cat([J, J2]),
    "add_blocks": lambda J, *_: 2 * J,
    "for_sums": lambda J, *_: J,
    "for_pairs": lambda J, *_: J,
    "rows": lambda J, *_: J[1:3],
}


@pytest.mark.parametrize("quantity", QUANTITIES)
@kinds
def test_each_quantity_equals_its_definition(make, quantity):
    block, other, *arguments = draw(make)
    value = QUANTITIES[quantity](block, other, *arguments)
    gradients = block.materialize(), other.materialize()
    expected = DEFINITIONS[quantity](*gradients, block.layout, *arguments)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("quantity", ["gram", "trace_gram", "paired"])
@kinds
def test_a_block_can_be_compared_with_one_of_another_form(make, quantity):
    block, other, *arguments = draw(make)
    expected = QUANTITIES[quantity](block, other, *arguments)
    dense = QUANTITIES[quantity](block, other.dense(), *arguments)
    torch.testing.assert_close(dense, expected)
    dense = QUANTITIES[quantity](block.dense(), other, *arguments)
    torch.testing.assert_close(dense, expected)


@pytest.mark.parametrize("rows", [False, True], ids=["columns", "rows"])
@kinds
def test_marginals_of_different_forms_are_those_of_the_gradients(make, rows):
    block, other, *_ = draw(make)
    other, by_rows = other.rows(slice(0, 4)), [rows] * len(block.layout)
    expected = block.marginals(other, by_rows)
    torch.testing.assert_close(block.marginals(other.dense(), by_rows), expected)


@kinds
def test_paired_traces_are_the_diagonal_of_the_trace_gram(make):
    block, other, *_ = draw(make)
    other = other.rows(slice(0, 4))
    torch.testing.assert_close(block.paired(other), block.trace_gram(other).diagonal())


@kinds
def test_a_split_block_is_concatenated_to_itself(make):
    block, *_ = draw(make)
    parts = block.split([1, 3])
    assert [len(part.materialize()) for part in parts] == [1, 3]
    torch.testing.assert_close(concatenate_blocks(parts).materialize(), block.materialize())


@kinds
def test_a_block_in_double_has_float64_factors(make):
    block, *_ = draw(make)
    single = block._map(lambda factor: factor.float() if factor.is_floating_point() else factor)
    assert single.materialize().dtype is torch.float32
    assert single.double().materialize().dtype is torch.float64


@kinds
def test_the_self_kernel_of_float32_gradients_is_computed_in_float64(make):
    block, *_ = draw(make)
    single = block._map(lambda factor: factor.float() if factor.is_floating_point() else factor)
    assert single.self_kernel().dtype is torch.float64
    J = single.double().materialize()
    expected = torch.einsum("now,npw->nop", J, J)
    torch.testing.assert_close(single.self_kernel(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make_block", [make_factor_block, make_embedding_block])
def test_blocks_with_different_numbers_of_positions_can_be_concatenated(make_block):
    blocks = [make_block(2, 3), make_block(4, 5)]
    expected = torch.cat([block.materialize() for block in blocks])
    torch.testing.assert_close(concatenate_blocks(blocks).materialize(), expected)


@pytest.mark.parametrize("make_block", [make_factor_block, make_embedding_block])
def test_uses_at_different_numbers_of_positions_can_be_added(make_block):
    blocks = [make_block(2, 3), make_block(2, 5)]
    expected = blocks[0].materialize() + blocks[1].materialize()
    torch.testing.assert_close(add_blocks(blocks).materialize(), expected)


def test_blocks_of_different_forms_can_be_added():
    block = make_factor_block(2, 3)
    added = add_blocks([block, block.dense()])
    torch.testing.assert_close(added.materialize(), 2 * block.materialize())


def test_a_single_block_is_added_without_a_copy():
    block = make_factor_block(2, 3)
    assert add_blocks([block]) is block


def test_the_bytes_of_a_block_are_those_of_its_factors():
    assert make_dense_block(4, [2, 3]).nbytes == 4 * OUTPUTS * 6 * 8
    block = make_factor_block(4, 3)
    assert block.nbytes == 8 * (block.cotangents.numel() + block.activations.numel())


def test_a_dense_block_uses_its_parameters_once():
    assert make_dense_block(4, [2, 3]).positions == 1


@pytest.mark.parametrize("make", [KINDS["dense"], KINDS["factors written out"]])
def test_a_dense_block_with_one_output_needs_no_matrix_product(make):
    block, *_ = draw(make)
    block = DenseBlock(block.layout, block.gradients[:, :1], block.order)
    J = block.materialize()
    torch.testing.assert_close(block.self_kernel(), torch.einsum("now,npw->nop", J, J))
    root = torch.rand(4, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(block.whiten(root).materialize(), root * J)


@pytest.mark.parametrize("width", [1, 512, 513, 1024, 2000])
def test_squared_norms_are_sums_of_squares_in_float64(width):
    vectors = torch.randn(3, 2, width, generator=torch.Generator().manual_seed(0))
    norms = squared_norms(vectors)
    assert norms.dtype is torch.float64
    torch.testing.assert_close(norms, vectors.double().square().sum(-1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("axis", [0, 1])
def test_tensors_are_concatenated_with_and_without_recorded_gradients(axis, recording):
    tensors = [torch.rand(2, 3), torch.rand(2, 3)]
    with torch.set_grad_enabled(recording):
        joined = concatenate_tensors(tensors, axis)
    assert torch.equal(joined, torch.cat(tensors, axis))


WIDE = 2_000_000
PRODUCTS_OF_WIDE_BLOCKS = {
    "gram": lambda block, vector: block.gram(block),
    "trace_gram": lambda block, vector: block.trace_gram(block),
    "paired": lambda block, vector: block.paired(block),
    "inner": lambda block, vector: block.inner([vector]),
    "product": lambda block, vector: block.product([vector]),
}


@pytest.mark.parametrize("quantity", PRODUCTS_OF_WIDE_BLOCKS.values(), ids=PRODUCTS_OF_WIDE_BLOCKS)
def test_products_of_wide_gradients_lose_no_more_digits_than_narrow_ones(quantity):
    """One product in float32 loses four digits at this width, and all of them have one sign."""
    gradients, vector = torch.rand(3, 1, WIDE), torch.rand(1, WIDE)
    layout = (("weight", torch.Size([WIDE])),)
    expected = quantity(DenseBlock(layout, gradients.double()), vector.double())
    torch.testing.assert_close(
        quantity(DenseBlock(layout, gradients), vector).double(), expected, rtol=3e-6, atol=0
    )
