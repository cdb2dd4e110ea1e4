r"""Inverse square roots of self-kernels that can be differentiated twice.

Eigenvectors have no derivative at equal eigenvalues, but functions of matrices have one. Let
:math:`A = U \operatorname{diag}(\lambda) U^T` and :math:`f(A) = U \operatorname{diag}(f(\lambda))
U^T`. The derivative of f(A) in a direction B has the divided differences of first order
:math:`f_{ij}` as factors (Daleckii and Krein),

.. math:: f_{ij} = \frac{f(\lambda_i) - f(\lambda_j)}{\lambda_i - \lambda_j}, \qquad
    Df(A)[B] = U \left( f_{ij} \, (U^T B U)_{ij} \right)_{ij} U^T,

and the second derivative those of second order :math:`f_{ijk} = (f_{ij} - f_{jk}) / (\lambda_i -
\lambda_k)`: with B and C written in the basis U,

.. math:: \left( D^2 f(A)[B, C] \right)_{ik} =
    \sum_j f_{ijk} \left( B_{ij} C_{jk} + C_{ij} B_{jk} \right).

Here f is :math:`\lambda^{-1/2}`, and 0 at eigenvalues that count as 0, which remain 0. In terms of
:math:`r = f(\lambda)` all divided differences are free of differences in the denominator, so equal
eigenvalues need no case of their own.

Index legend: n samples; d outputs; i, j, k eigenvalues.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._kernels.whitening import inverse_root, rank_cutoff


class _InverseRoot(torch.autograd.Function):
    """The function f of symmetric matrices (n, d, d).

    Eigenvalues up to ``cutoff`` times the largest count as 0.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, cutoff: float) -> Tensor:
        vectors, r = _decompose(matrices, cutoff)
        ctx.save_for_backward(matrices)
        ctx.cutoff = cutoff
        # f(A) = U diag(r) U^T
        return (vectors * r[:, None]) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (matrices,) = ctx.saved_tensors
        # Df(A) is self-adjoint: <W, Df(A)[dA]> = <Df(A)[W], dA>.
        return _InverseRootDerivative.apply(matrices, gradients[0], ctx.cutoff), None


class _InverseRootDerivative(torch.autograd.Function):
    """Derivative Df(A)[B] of the inverse root in a direction B, of shape (n, d, d)."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, direction: Tensor, cutoff: float) -> Tensor:
        vectors, r = _decompose(matrices, cutoff)
        ctx.save_for_backward(vectors, r, direction)
        # Df(A)[B] = U (f_ij (U^T B U)_ij) U^T
        return _from_eigenbasis(vectors, _first_differences(r) * _to_eigenbasis(vectors, direction))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        vectors, r, direction = ctx.saved_tensors
        B, W = (_to_eigenbasis(vectors, matrix) for matrix in (direction, gradients[0]))
        # <W, D^2 f(A)[B, C]> = sum_ijk W_ik f_ijk (B_ij C_jk + C_ij B_jk) = <M + M^T, C>, where
        # M_jk = sum_i f_ijk B_ij W_ik, because f_ijk does not depend on the order of i, j, k.
        M = torch.einsum("nijk,nij,nik->njk", _second_differences(r), B, W)
        # In the direction, Df(A) is linear and self-adjoint.
        adjoint = _from_eigenbasis(vectors, _first_differences(r) * W)
        return _from_eigenbasis(vectors, M + M.mT), adjoint, None


def _decompose(matrices: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors U (n, d, d), and r = f(lambda) (n, d)."""
    eigenvalues, vectors = torch.linalg.eigh(matrices)
    kept = eigenvalues > cutoff * eigenvalues[:, -1:]
    return vectors, torch.where(kept, eigenvalues, 1.0).rsqrt() * kept


def _to_eigenbasis(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Return U^T B U for the symmetric part of B."""
    return vectors.mT @ ((matrices + matrices.mT) / 2) @ vectors


def _from_eigenbasis(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Return U B U^T."""
    return vectors @ matrices @ vectors.mT


def _first_differences(r: Tensor) -> Tensor:
    """Return the divided differences f_ij, of shape (n, d, d).

    With a = r_i and b = r_j, and lambda = r^{-2}:
    f_ij = (a - b) / (a^{-2} - b^{-2}) = -a^2 b^2 / (a + b); at a = b this is f'(lambda) = -a^3 / 2.
    If lambda_j = 0 and so b = 0: f_ij = a / a^{-2} = a^3.
    """
    a, b = r[:, :, None], r[:, None, :]
    return -((a * b) ** 2) / _replace_zeros(a + b) + a**3 * (b == 0) + b**3 * (a == 0)


def _second_differences(r: Tensor) -> Tensor:
    """Return the divided differences f_ijk, of shape (n, d, d, d).

    With a = r_i, b = r_j, c = r_k:
    f_ijk = a^2 b^2 c^2 (ab + bc + ca) / ((a + b) (b + c) (c + a)).
    If one is zero, c: f_ijk = -a^2 b^2 (a^2 + ab + b^2) / (a + b). If two are, b and c: a^5.
    """
    a, b, c = r[:, :, None, None], r[:, None, :, None], r[:, None, None, :]
    denominator = _replace_zeros(a + b) * _replace_zeros(b + c) * _replace_zeros(c + a)
    differences = (a * b + b * c + c * a) * (a * b * c) ** 2 / denominator
    for x, y, z in ((a, b, c), (b, c, a), (c, a, b)):
        numerator = (x**2 + x * y + y**2) * (x * y) ** 2
        differences = differences - numerator / _replace_zeros(x + y) * (z == 0)
        differences = differences + x**5 * (y == 0) * (z == 0)
    return differences


def _replace_zeros(sums: Tensor) -> Tensor:
    """Return the sums with 1 in place of 0, for denominators whose numerator is 0."""
    return torch.where(sums == 0, 1.0, sums)


def differentiable_inverse_root(self_kernel: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the roots and ranks of `inverse_root`, as a function of the self-kernels.

    Parameters
    ----------
    self_kernel : Tensor of shape (n, d, d), float64
        K(x, x), with a graph.
    dtype : dtype
        The dtype that the gradients were computed in.

    Returns
    -------
    root : Tensor of shape (n, d, d), float64
        The roots, with the graph of the self-kernels. At a zero gradient the root is zero and so
        are its derivatives.
    rank : Tensor of shape (n,), int64
        Ranks of the self-kernels; 0 for a zero gradient.
    """
    _, rank, _ = inverse_root(self_kernel.detach(), dtype)
    is_nonzero, outputs = (rank > 0)[:, None, None], self_kernel.shape[1]
    identity = torch.eye(outputs, dtype=self_kernel.dtype, device=self_kernel.device)
    # Zero kernels are replaced before anything is computed: 0 times an infinite derivative is NaN.
    kernel = torch.where(is_nonzero, self_kernel, identity)
    # K^{-1/2} = s^{-1/2} (K / s)^{-1/2} for the mean eigenvalue s: powers of r stay in range.
    scale = kernel.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    root = torch.ones_like(kernel)
    if outputs > 1:
        root = _InverseRoot.apply(kernel / scale, rank_cutoff(outputs, dtype))
    return root * scale.rsqrt() * is_nonzero, rank
