r"""Inverse square roots of self-kernels that can be differentiated twice.

Eigenvectors have no derivative where eigenvalues are equal, and functions of matrices have one.
With :math:`A = U \operatorname{diag}(\lambda) U^T` and divided differences
:math:`f_{ij} = (f(\lambda_i) - f(\lambda_j)) / (\lambda_i - \lambda_j)`, a change B of A changes
f(A) by :math:`U (f_{ij} \, (U^T B U)_{ij}) U^T` (Daleckii and Krein), and the second derivative has
divided differences of second order. Here f is :math:`\lambda^{-1/2}`, and 0 at eigenvalues that
count as 0, which stay so; written in :math:`r = f(\lambda)` no difference is divided by.

Index legend: n samples; d outputs; i, j, k eigenvalues.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._kernels.whitening import inverse_root, rank_cutoff


class _InverseRoot(torch.autograd.Function):
    """f of symmetric matrices (n, d, d), eigenvalues up to a share of the largest counting as 0."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, cutoff: float) -> Tensor:
        vectors, values = _decomposed(matrices, cutoff)
        ctx.save_for_backward(matrices)
        ctx.cutoff = cutoff
        return (vectors * values[:, None]) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (matrices,) = ctx.saved_tensors
        return _Change.apply(matrices, gradients[0], ctx.cutoff), None


class _Change(torch.autograd.Function):
    """How f(A) changes with A, in a direction; its own adjoint in the direction."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, direction: Tensor, cutoff: float) -> Tensor:
        vectors, values = _decomposed(matrices, cutoff)
        ctx.save_for_backward(vectors, values, direction)
        return _from_basis(vectors, _first(values) * _in_basis(vectors, direction))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        vectors, values, direction = ctx.saved_tensors
        moved, weights = (_in_basis(vectors, matrix) for matrix in (direction, gradients[0]))
        mixed = torch.einsum("nijk,nij,nik->njk", _second(values), moved, weights)
        adjoint = _from_basis(vectors, _first(values) * weights)
        return _from_basis(vectors, mixed + mixed.mT), adjoint, None


def _decomposed(matrices: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Eigenvectors (n, d, d), and f of the eigenvalues (n, d)."""
    eigenvalues, vectors = torch.linalg.eigh(matrices)
    kept = eigenvalues > cutoff * eigenvalues[:, -1:]
    return vectors, torch.where(kept, eigenvalues, 1.0).rsqrt() * kept


def _in_basis(vectors: Tensor, matrices: Tensor) -> Tensor:
    """The symmetric part, between eigenvectors."""
    return vectors.mT @ ((matrices + matrices.mT) / 2) @ vectors


def _from_basis(vectors: Tensor, matrices: Tensor) -> Tensor:
    return vectors @ matrices @ vectors.mT


def _first(r: Tensor) -> Tensor:
    """Divided differences f_ij (n, d, d): -r^2 s^2 / (r + s), or r^3 where the other is 0."""
    a, b = r[:, :, None], r[:, None, :]
    return -((a * b) ** 2) / _nonzero(a + b) + a**3 * (b == 0) + b**3 * (a == 0)


def _second(r: Tensor) -> Tensor:
    """Divided differences f_ijk, of shape (n, d, d, d)."""
    a, b, c = r[:, :, None, None], r[:, None, :, None], r[:, None, None, :]
    pairs = _nonzero(a + b) * _nonzero(b + c) * _nonzero(c + a)
    found = (a * b + b * c + c * a) * (a * b * c) ** 2 / pairs
    for x, y, z in ((a, b, c), (b, c, a), (c, a, b)):
        found = found - (x**2 + x * y + y**2) * (x * y) ** 2 / _nonzero(x + y) * (z == 0)
        found = found + x**5 * (y == 0) * (z == 0)
    return found


def _nonzero(sums: Tensor) -> Tensor:
    return torch.where(sums == 0, 1.0, sums)


def differentiable_inverse_root(self_kernel: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The roots and ranks of `differentiable_inverse_root`, as a function of the self-kernels.

    Parameters
    ----------
    self_kernel : Tensor of shape (n, d, d), float64
        K(x, x), with a graph.
    dtype : dtype
        The dtype that the gradients were computed in.

    Returns
    -------
    root : Tensor of shape (n, d, d), float64
        The roots, with the graph of the self-kernels; zero, whatever changes, at a zero gradient.
    rank : Tensor of shape (n,), int64
        Their ranks.
    """
    _, rank = inverse_root(self_kernel.detach(), dtype)
    seen, outputs = (rank > 0)[:, None, None], self_kernel.shape[1]
    identity = torch.eye(outputs, dtype=self_kernel.dtype, device=self_kernel.device)
    kernel = torch.where(seen, self_kernel, identity)
    size = kernel.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    root = torch.ones_like(kernel)
    if outputs > 1:
        root = _InverseRoot.apply(kernel / size, rank_cutoff(outputs, dtype))
    return root * size.rsqrt() * seen, rank
