"""Functions that are computed from others give the results of torch."""

import pytest
import torch
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


@pytest.mark.parametrize("options", [{"mode": "max"}, {"max_norm": 1.0}, {"offsets": [0, 2]}])
def test_other_embedding_bags_are_not_decomposed(options):
    words = torch.tensor([0, 2, 5]) if "offsets" in options else torch.tensor([[0, 2, 5]])
    result = find_decomposition(functional.embedding_bag)(words, torch.randn(6, 3), **options)
    assert result is NotImplemented
