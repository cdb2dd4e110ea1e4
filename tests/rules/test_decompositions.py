"""Functions that are computed from others give the results of torch."""

import pytest
import torch

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
