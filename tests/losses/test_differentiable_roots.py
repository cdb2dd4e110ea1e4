"""Differentiable inverse roots, against finite differences and against `inverse_root`."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from sknetsim._kernels.whitening import inverse_root
from sknetsim.losses._differentiable_roots import (
    _first_differences,
    _second_differences,
    differentiable_inverse_root,
)

RANKS = [(1, 1), (3, 3), (3, 2), (4, 1)]
ranks = pytest.mark.parametrize(("outputs", "rank"), RANKS)


def compute_self_kernels(factors):
    return factors @ factors.mT


def draw_factors(outputs, rank):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, outputs, rank, dtype=torch.float64, generator=generator)


def compute_root(factors):
    return differentiable_inverse_root(compute_self_kernels(factors), torch.float64)[0]


@ranks
def test_roots_and_ranks_equal_those_of_inverse_root(outputs, rank):
    kernel = compute_self_kernels(draw_factors(outputs, rank))
    actual = differentiable_inverse_root(kernel, torch.float64)
    torch.testing.assert_close(actual, inverse_root(kernel, torch.float64)[:2])


@ranks
def test_first_and_second_derivatives_equal_finite_differences(outputs, rank):
    factors = draw_factors(outputs, rank).requires_grad_()
    assert gradcheck(compute_root, (factors,))
    assert gradgradcheck(compute_root, (factors,))


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_derivatives_exist_at_equal_eigenvalues(outputs):
    factors = torch.eye(outputs, dtype=torch.float64)[None].clone().requires_grad_()
    assert gradcheck(compute_root, (factors,))
    assert gradgradcheck(compute_root, (factors,))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_zero_gradient_has_a_zero_root_with_zero_derivatives(outputs):
    kernel = torch.zeros(1, outputs, outputs, dtype=torch.float64, requires_grad=True)
    root, rank = differentiable_inverse_root(kernel, torch.float32)
    root.sum().backward()
    assert not rank.any() and not root.any() and not kernel.grad.any()


def make_kernel(*eigenvalues):
    """Return a matrix with these eigenvalues and a random basis."""
    generator = torch.Generator().manual_seed(0)
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return (basis * torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.mT


def test_kernels_of_different_ranks_in_a_batch_are_independent():
    kernels = torch.stack(
        [make_kernel(1.0, 1e-10, 0.0), make_kernel(1.0, 0.0, 0.0), make_kernel(3.0, 2.0, 1.0)]
    )
    expected = inverse_root(kernels, torch.float64)[0]
    roots = differentiable_inverse_root(kernels, torch.float64)[0]
    torch.testing.assert_close(roots, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-6])
def test_derivatives_are_correct_for_small_eigenvalues(smallest):
    """The derivative of K^{-1/2} in the direction K is -K^{-1/2} / 2."""
    kernel = make_kernel(1.0, smallest, 0.0)[None].requires_grad_()
    root = differentiable_inverse_root(kernel, torch.float64)[0]
    weights = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(root, kernel, weights[None])
    actual, expected = (gradient * kernel).sum(), -(root * weights).sum() / 2
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_roots_of_tiny_and_huge_kernels_are_correct(scale):
    kernel = scale * compute_self_kernels(draw_factors(3, 2))
    expected = inverse_root(kernel, torch.float32)[0]
    torch.testing.assert_close(differentiable_inverse_root(kernel, torch.float32)[0], expected)


def test_divided_differences_are_those_of_the_inverse_root():
    """f_ij = (f(l_i) - f(l_j)) / (l_i - l_j) and f_ijk = (f_ij - f_jk) / (l_i - l_k)."""
    eigenvalues = torch.tensor([1.0, 2.0, 5.0, 0.0], dtype=torch.float64)
    r = torch.where(eigenvalues > 0, eigenvalues.rsqrt(), 0)
    first, second = _first_differences(r[None])[0], _second_differences(r[None])[0]
    for i, j, k in itertools.permutations(range(4), 3):
        expected = (r[i] - r[j]) / (eigenvalues[i] - eigenvalues[j])
        torch.testing.assert_close(first[i, j], expected)
        expected = (first[i, j] - first[j, k]) / (eigenvalues[i] - eigenvalues[k])
        torch.testing.assert_close(second[i, j, k], expected)


def test_divided_differences_at_equal_eigenvalues_are_derivatives():
    """f_ii = f'(l) = -l^{-3/2} / 2 and f_iii = f''(l) / 2 = 3 l^{-5/2} / 8; both are 0 at 0."""
    r = torch.tensor([[0.5, 0.0]], dtype=torch.float64)  # l = 4, and l = 0
    first, second = _first_differences(r)[0], _second_differences(r)[0]
    assert first.diagonal().tolist() == [-1 / 16, 0]
    assert second[0, 0, 0].item() == pytest.approx(3 / 8 / 32)
    assert second[1, 1, 1].item() == 0
