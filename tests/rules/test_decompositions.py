"""Functions that are computed from others give the results of torch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sknetsim.rules import find_decomposition

SHAPES_AND_AXES = [((4, 3), 0), ((4, 3), 1), ((4, 3), -1), ((4, 3), -2), ((3,), 0), ((2, 4, 3), 1)]


@pytest.mark.parametrize(("shape", "dim"), SHAPES_AND_AXES)
def test_weight_norm_is_that_of_torch(shape, dim):
    v = torch.randn(shape, dtype=torch.float64)
    g = torch.rand_like(torch.norm_except_dim(v, 2, dim))
    result = find_decomposition(torch._weight_norm)(v, g, dim)
    torch.testing.assert_close(result, torch._weight_norm(v, g, dim))


def test_the_second_derivative_of_weight_norm_is_correct():
    v, g = torch.randn(3, 2, dtype=torch.float64), torch.rand(3, 1, dtype=torch.float64)
    arguments = v.requires_grad_(), g.requires_grad_()
    assert torch.autograd.gradgradcheck(find_decomposition(torch._weight_norm), arguments)


def test_a_function_without_a_decomposition_has_none():
    assert find_decomposition(torch.matmul) is None


BAGS = {
    "mean": {},
    "sum": {"mode": "sum"},
    "padding": {"padding_idx": 2},
    "padding counted from the end": {"padding_idx": -4, "mode": "sum"},
    "weights": {"mode": "sum", "per_sample_weights": torch.rand(3, 4)},
    "weights and padding": {
        **{"mode": "sum", "padding_idx": 2, "per_sample_weights": torch.rand(3, 4)},
    },
    "sparse": {"sparse": True},
}


@pytest.mark.parametrize("options", BAGS.values(), ids=BAGS)
def test_an_embedding_bag_is_that_of_torch(options):
    """One bag consists of padding only."""
    words = torch.tensor([[0, 2, 5, 2], [2, 2, 2, 2], [1, 1, 4, 0]])
    table = torch.randn(6, 3)
    result = find_decomposition(functional.embedding_bag)(words, table, **options)
    torch.testing.assert_close(result, functional.embedding_bag(words, table, **options))


OFFSETS = {
    "mean": {},
    "sum": {"mode": "sum"},
    "padding": {"padding_idx": 2},
    "weights": {"mode": "sum", "per_sample_weights": torch.rand(7)},
    "last offset": {"offsets": torch.tensor([0, 2, 2, 6, 7]), "include_last_offset": True},
}


@pytest.mark.parametrize("options", OFFSETS.values(), ids=OFFSETS)
def test_an_embedding_bag_with_offsets_is_that_of_torch(options):
    """The second bag is empty, and the third is longer than the others."""
    words, table = torch.tensor([0, 2, 5, 2, 1, 1, 4]), torch.randn(6, 3)
    options = {"offsets": torch.tensor([0, 2, 2, 6]), **options}
    result = find_decomposition(functional.embedding_bag)(words, table, **options)
    torch.testing.assert_close(result, functional.embedding_bag(words, table, **options))


def test_bags_may_all_be_empty():
    words, offsets = torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0])
    result = find_decomposition(functional.embedding_bag)(words, torch.randn(6, 3), offsets)
    assert torch.equal(result, torch.zeros(2, 3))


@pytest.mark.parametrize("options", [{"mode": "max"}, {"max_norm": 1.0}])
def test_other_embedding_bags_are_not_decomposed(options):
    words = torch.tensor([[0, 2, 5]])
    result = find_decomposition(functional.embedding_bag)(words, torch.randn(6, 3), **options)
    assert result is NotImplemented


TOKEN, FACTORS = torch.randn(2, 3), {"beta": 2.0, "alpha": 3.0}
BATCHES = torch.randn(2, 1, 4), torch.randn(2, 5, 3), torch.randn(2, 3, 4)
REPETITIONS = {
    "stack": (torch.stack, [TOKEN] * 4),
    "stack along the last axis": (torch.stack, [TOKEN] * 4, -1),
    "stack of one": (torch.stack, [TOKEN], 1),
    "cat": (torch.cat, [TOKEN] * 4),
    "cat along the last axis": (torch.concat, [TOKEN] * 4, -1),
    "repeat_interleave": (torch.repeat_interleave, TOKEN, 3),
    "repeat_interleave along an axis": (Tensor.repeat_interleave, TOKEN, 3, -1),
    "baddbmm": (torch.baddbmm, *BATCHES),
    "tensordot": (torch.tensordot, torch.randn(4, 2, 3), torch.randn(2, 3, 5)),
    "tensordot of one axis": (torch.tensordot, torch.randn(4, 3), torch.randn(3, 5), 1),
    "tensordot of named axes": (
        *(torch.tensordot, torch.randn(4, 2, 3), torch.randn(3, 5, 2), ([-1, 1], [0, 2])),
    ),
}


@pytest.mark.parametrize("call", REPETITIONS.values(), ids=REPETITIONS)
def test_products_and_repetitions_are_those_of_torch(call):
    function, *arguments = call
    result = find_decomposition(function)(*arguments)
    torch.testing.assert_close(result, function(*arguments))


@pytest.mark.parametrize("call", REPETITIONS.values(), ids=REPETITIONS)
def test_results_have_memory_of_their_own(call):
    """The network may write into them."""
    function, *arguments = call
    result = find_decomposition(function)(*arguments)
    expected = 2 * result
    result.mul_(2)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(2 * find_decomposition(function)(*arguments), expected)


def test_factors_of_a_sum_of_products_are_those_of_torch():
    result = find_decomposition(torch.baddbmm)(*BATCHES, **FACTORS)
    torch.testing.assert_close(result, torch.baddbmm(*BATCHES, **FACTORS))


NOT_COVERED = {
    "stack of several": (torch.stack, [TOKEN, 2 * TOKEN]),
    "cat of several": (torch.cat, [TOKEN, TOKEN, 2 * TOKEN]),
    "numbers of repetitions": (torch.repeat_interleave, TOKEN, torch.tensor([1, 2]), 0),
}


@pytest.mark.parametrize("call", NOT_COVERED.values(), ids=NOT_COVERED)
def test_other_repetitions_are_not_decomposed(call):
    function, *arguments = call
    assert find_decomposition(function)(*arguments) is NotImplemented


EQUATIONS = {
    "ntI,IJ->ntJ": [(4, 5, 3), (3, 2)],
    "nti, ji -> ntj": [(4, 5, 3), (2, 3)],
    "ji,nti->jnt": [(2, 3), (4, 5, 3)],
    "...i,ij->...j": [(4, 5, 3), (3, 2)],
    "t...i,...ij->...tj": [(4, 5, 3), (5, 3, 2)],
    "ntkd,kde->nkte": [(4, 5, 2, 3), (2, 3, 6)],
    "ntkd,hkd->nth": [(4, 5, 2, 3), (6, 2, 3)],
    "ntkd,kdh->nth": [(4, 5, 2, 3), (2, 3, 6)],
    "nti,ijk->ntkj": [(4, 5, 3), (3, 2, 6)],
    "nti,tij->nj": [(4, 5, 3), (5, 3, 2)],
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_einsum_is_that_of_torch(equation):
    operands = [torch.randn(shape, dtype=torch.float64) for shape in EQUATIONS[equation]]
    result = find_decomposition(torch.einsum)(equation, *operands)
    torch.testing.assert_close(result, torch.einsum(equation, operands))


OTHER_EQUATIONS = {
    "ni,nij->nj": [(4, 3), (4, 3, 2)],
    "ntt,ij->nij": [(4, 3, 3), (3, 2)],
    "nti,ij->nj": [(4, 5, 3), (3, 2)],
    "nti,i->nti": [(4, 5, 3), (3,)],
    "nti,i->nt": [(4, 5, 3), (3,)],
    "nti,ij": [(4, 5, 3), (3, 2)],
    "nti,ij->ntj": [(4, 5, 3), (1, 2)],
    "ni,ij,nj->n": [(4, 3), (3, 2), (4, 2)],
    "ni->in": [(4, 3)],
}


@pytest.mark.parametrize("equation", OTHER_EQUATIONS)
def test_other_einsums_are_not_decomposed(equation):
    operands = [torch.randn(shape) for shape in OTHER_EQUATIONS[equation]]
    assert find_decomposition(torch.einsum)(equation, *operands) is NotImplemented


def test_an_einsum_of_lists_of_axes_is_not_decomposed():
    x, weight = torch.randn(4, 3), torch.randn(3, 2)
    result = find_decomposition(torch.einsum)(x, [0, 1], weight, [1, 2], [0, 2])
    assert result is NotImplemented
