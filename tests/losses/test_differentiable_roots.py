"""Roots that can be differentiated, against finite differences and those that cannot."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from sknetsim._kernels import whitening as _kernels
from sknetsim.losses._differentiable_roots import differentiable_inverse_root

RANKS = [(1, 1), (3, 3), (3, 2), (4, 1)]
ranks = pytest.mark.parametrize(("outputs", "rank"), RANKS)


def self_kernels(factors):
    return factors @ factors.mT


def random_factors(outputs, rank):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, outputs, rank, dtype=torch.float64, generator=generator)


def root_of(factors):
    return differentiable_inverse_root(self_kernels(factors), torch.float64)[0]


@ranks
def test_roots_and_ranks_are_those_of_the_kernels(outputs, rank):
    kernel = self_kernels(random_factors(outputs, rank))
    for found, expected in zip(
        differentiable_inverse_root(kernel, torch.float64),
        _kernels.inverse_root(kernel, torch.float64),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@ranks
def test_first_and_second_derivatives_are_those_of_finite_differences(outputs, rank):
    factors = random_factors(outputs, rank).requires_grad_()
    assert gradcheck(root_of, (factors,))
    assert gradgradcheck(root_of, (factors,))


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_equal_eigenvalues_have_derivatives(outputs):
    factors = torch.eye(outputs, dtype=torch.float64)[None].clone().requires_grad_()
    assert gradcheck(root_of, (factors,))
    assert gradgradcheck(root_of, (factors,))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_zero_gradient_has_a_root_of_zero_that_does_not_change(outputs):
    kernel = torch.zeros(1, outputs, outputs, dtype=torch.float64, requires_grad=True)
    root, rank = differentiable_inverse_root(kernel, torch.float32)
    root.sum().backward()
    assert not rank.any() and not root.any() and not kernel.grad.any()


def turned(*eigenvalues):
    """A matrix with these eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return (basis * torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.mT


def test_kernels_of_different_ranks_do_not_meet():
    kernels = torch.stack([turned(1.0, 1e-10, 0.0), turned(1.0, 0.0, 0.0), turned(3.0, 2.0, 1.0)])
    expected = _kernels.inverse_root(kernels, torch.float64)[0]
    found = differentiable_inverse_root(kernels, torch.float64)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-6])
def test_small_eigenvalues_have_the_derivatives_of_large_ones(smallest):
    """d (K^{-1/2}) along K itself is -K^{-1/2} / 2."""
    kernel = turned(1.0, smallest, 0.0)[None].requires_grad_()
    root = differentiable_inverse_root(kernel, torch.float64)[0]
    weights = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(root, kernel, weights[None])
    found, expected = (gradient * kernel).sum(), -(root * weights).sum() / 2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_tiny_and_huge_kernels_have_roots(scale):
    kernel = scale * self_kernels(random_factors(3, 2))
    expected = _kernels.inverse_root(kernel, torch.float32)[0]
    torch.testing.assert_close(differentiable_inverse_root(kernel, torch.float32)[0], expected)
