"""Blocks of derived tensors, against their gradients written out."""

import copy
import pickle

import pytest
import torch

from sknetsim._kernels import sum_blocks
from sknetsim._kernels.blocks import DenseBlock, add_blocks, concatenate_blocks
from sknetsim._kernels.embedding_blocks import EmbeddingBlock
from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim._kernels.layouts import Order
from sknetsim._kernels.parameter_maps import IdentityMap, IndexMap
from sknetsim._kernels.sum_blocks import SumBlock, Summand, wrap_block

from .derived_blocks import ORTHOGONAL, OTHERS, SUMS, define_gradients, make_sum, sums
from .random_blocks import KINDS, QUANTITIES, draw, kinds


def draw_sum(make_parts):
    return draw(lambda samples: make_sum(make_parts, samples))


@sums
def test_gradients_are_mapped_to_the_parameters_and_added(make_parts):
    block, *_ = draw_sum(make_parts)
    torch.testing.assert_close(block.materialize().detach(), define_gradients(make_parts, block))


@pytest.mark.parametrize("name", SUMS)
def test_products_are_added_only_if_no_element_is_used_twice(name):
    assert make_sum(SUMS[name], 2).is_orthogonal == (name in ORTHOGONAL)


@pytest.mark.parametrize("recording", [True, False], ids=["graph", "no graph"])
@pytest.mark.parametrize("quantity", QUANTITIES)
@sums
def test_each_quantity_equals_that_of_the_gradients(make_parts, quantity, recording):
    block, other, *arguments = draw_sum(make_parts)
    with torch.set_grad_enabled(recording):
        value = QUANTITIES[quantity](block, other, *arguments)
        expected = QUANTITIES[quantity](block.dense(), other.dense(), *arguments)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("quantity", ["gram", "trace_gram", "paired", "marginals by rows"])
@sums
def test_a_sum_can_be_compared_with_a_block_of_another_form(make_parts, quantity):
    block, other, *arguments = draw_sum(make_parts)
    expected = QUANTITIES[quantity](block.dense(), other.dense(), *arguments)
    for pair in ((block, other.dense()), (block.dense(), other)):
        torch.testing.assert_close(QUANTITIES[quantity](*pair, *arguments), expected)


@pytest.mark.parametrize("make_parts", ORTHOGONAL.values(), ids=ORTHOGONAL)
def test_products_of_disjoint_elements_need_no_gradients(make_parts, monkeypatch):
    block, other, *_ = draw_sum(make_parts)
    expected = block.dense().gram(other.dense()), block.dense().self_kernel()
    monkeypatch.setattr(SumBlock, "materialize", None)
    values = block.gram(other), block.self_kernel()
    torch.testing.assert_close(values, expected)
    assert isinstance(block.for_pairs(), SumBlock)


@pytest.mark.parametrize("make_parts", OTHERS.values(), ids=OTHERS)
def test_other_gradients_are_written_out_for_pairs(make_parts):
    assert isinstance(make_sum(make_parts, 2).for_pairs(), DenseBlock)


@sums
def test_a_split_sum_is_concatenated_to_itself(make_parts):
    block, *_ = draw_sum(make_parts)
    parts = block.split([1, 3])
    assert [len(part.materialize()) for part in parts] == [1, 3]
    torch.testing.assert_close(concatenate_blocks(parts).materialize(), block.materialize())


@sums
def test_sums_are_added_to_blocks_of_other_forms(make_parts):
    block, *_ = draw_sum(make_parts)
    added = add_blocks([block, block.dense(), block])
    torch.testing.assert_close(added.materialize(), 3 * block.materialize())


@sums
def test_a_pickled_or_copied_sum_has_the_same_gradients(make_parts):
    block, *_ = draw_sum(make_parts)
    with torch.no_grad():
        for other in (pickle.loads(pickle.dumps(block)), copy.deepcopy(block)):
            torch.testing.assert_close(other.materialize(), block.materialize())
            assert other.layout == block.layout


@sums
def test_a_sum_in_double_has_float64_gradients(make_parts):
    block, *_ = draw_sum(make_parts)
    single = block._map(lambda factor: factor.float() if factor.is_floating_point() else factor)
    assert single.materialize().dtype is torch.float32
    assert single.double().materialize().dtype is torch.float64
    assert single.self_kernel().dtype is torch.float64
    assert single.nbytes < block.nbytes


@sums
def test_the_sketch_holds_as_many_vectors_as_that_of_the_gradients(make_parts):
    block = make_sum(make_parts, 3)
    assert block.sketched_vectors == block.dense().sketched_vectors


@pytest.mark.parametrize("quantity", ["self_kernel", "sketch"])
@sums
def test_few_samples_are_written_out_at_a_time(make_parts, quantity, monkeypatch):
    block, *arguments = draw_sum(make_parts)
    expected = QUANTITIES[quantity](block, *arguments)
    monkeypatch.setattr(sum_blocks, "_WRITTEN_ELEMENTS", 1)
    torch.testing.assert_close(QUANTITIES[quantity](block, *arguments), expected)


def test_the_positions_are_those_of_the_part_with_most():
    assert make_sum(SUMS["halves"], 2).positions == 3


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_has_positions_if_all_parts_have_the_same_ones(name):
    block, other = (make_sum(SUMS[name], 2) for _ in range(2))
    expected = {"halves with a bias": 1, "some rows": 3, "rows of a table": 5}
    assert block.has_positions == (name in expected)
    if block.has_positions:
        shares = block.paired_positions(other)
        assert shares.shape == (2, expected[name], expected[name])
        torch.testing.assert_close(shares.sum((1, 2)), block.paired(other))


@kinds
def test_a_wrapped_block_has_the_same_gradients(make):
    block = make(2)
    wrapped = wrap_block(block)
    assert wrapped.is_orthogonal and wrapped.layout == block.layout
    torch.testing.assert_close(wrapped.materialize(), block.materialize())


def test_blocks_of_a_sum_may_have_products_of_different_precision():
    """Products of wide gradients are added in float64, and those of narrow ones in float32."""
    torch.manual_seed(0)
    narrow = KINDS["dense"](3)._map(torch.Tensor.float)
    wide = DenseBlock((("wide", torch.Size([40_000])),), torch.randn(3, 3, 40_000))
    parts = [part for block in (narrow, wide) for part in wrap_block(block).parts]
    block = sum_blocks.make_sum_block((*narrow.layout, *wide.layout), parts)
    value, expected = block.gram(block), block.double().gram(block.double())
    assert value.dtype is torch.float64
    torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-1)


def test_quantities_can_be_differentiated_in_the_parameters():
    """The derivative in a parameter behind a map includes that of the map."""
    block, other, *_ = draw_sum(SUMS["normalized with a bias"])
    parameter = block.parts[0].maps[0]._parameters[0]
    values = block.gram(other), block.dense().gram(other.dense()), block.self_kernel()
    gradients = [
        torch.autograd.grad(value.square().sum(), parameter, retain_graph=True)[0]
        for value in values[:2]
    ]
    torch.testing.assert_close(*gradients)
    assert gradients[0].any() and values[2].requires_grad


LAYOUT = (("table", torch.Size([9, 12])),)
TRANSPOSED = torch.arange(9 * 12).view(9, 12).T


def draw_uses(outputs=1):
    """Return blocks of a table as an embedding, and in two products, with their maps."""
    generator = torch.Generator().manual_seed(0)

    def draw_double(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    indices = torch.randint(9, (4, 2), generator=generator)
    identity, transposition = IdentityMap(LAYOUT), IndexMap(LAYOUT, TRANSPOSED.flatten())
    wide, long = draw_double(4, outputs, 2, 1, 9), draw_double(4, outputs, 3, 1, 12)
    swapped = (("table", torch.Size([12, 9])),)
    return {
        "embedding": (EmbeddingBlock(LAYOUT, draw_double(4, outputs, 2, 1, 12), indices), identity),
        "layer": (FactorBlock(LAYOUT, wide, draw_double(4, 2, 1, 12)), identity),
        "product": (
            FactorBlock(LAYOUT, long, draw_double(4, 3, 1, 9), Order((1, 12, 9), (0, 2, 1))),
            identity,
        ),
        "transposed": (FactorBlock(swapped, long, draw_double(4, 3, 1, 9)), transposition),
    }


USES = [
    ("embedding", "layer"),
    ("embedding", "product"),
    ("layer", "product"),
    ("layer", "transposed"),
    ("embedding", "layer", "transposed"),
]


def add_uses(names, outputs=1):
    uses = draw_uses(outputs)
    parts = [Summand(block, (parameter_map,)) for block, parameter_map in map(uses.get, names)]
    return sum_blocks.make_sum_block(LAYOUT, parts)


@pytest.mark.parametrize("names", USES, ids="-".join)
def test_self_kernels_of_a_matrix_that_is_used_in_several_ways_need_no_gradients(
    names, monkeypatch
):
    block = add_uses(names)
    expected = block.dense().self_kernel()
    monkeypatch.setattr(SumBlock, "materialize", None)
    torch.testing.assert_close(block.self_kernel(), expected)


def test_self_kernels_of_several_outputs_are_those_of_the_gradients():
    block = add_uses(["embedding", "layer"], outputs=2)
    torch.testing.assert_close(block.self_kernel(), block.dense().self_kernel())


@pytest.mark.parametrize("scale", [1.0, 1.0 - 1e-6])
def test_self_kernels_are_exact_if_the_gradients_of_two_uses_cancel(scale):
    """The gradients of the layer are those of the embedding, multiplied by ``-scale``."""
    (embedding, identity), _, _, _ = draw_uses().values()
    one_hot = torch.nn.functional.one_hot(embedding.indices, 9)[:, None, :, None]
    layer = FactorBlock(LAYOUT, -scale * one_hot.double(), embedding.cotangents[:, 0])
    parts = [Summand(block, (identity,)) for block in (embedding, layer)]
    block = sum_blocks.make_sum_block(LAYOUT, parts)
    block = block._map(lambda t: t.float() if t.is_floating_point() else t)
    expected = block.dense().self_kernel()
    torch.testing.assert_close(block.self_kernel(), expected, rtol=1e-5, atol=0)
