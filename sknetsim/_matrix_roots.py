r"""Inverse square roots of self-kernels that can be differentiated, again and again.

Eigenvectors have no derivative where eigenvalues are equal, and roots have one. With S the root of
A and :math:`L_S` the linear map :math:`X \mapsto S X + X S`, a change dA changes S by
:math:`L_S^{-1}(dA)`; that map is its own adjoint, and a change dS changes
:math:`X = L_S^{-1}(B)` by :math:`-L_S^{-1}(dS X + X dS)`.

Index legend: n samples; d outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _kernels


class _SquareRoot(torch.autograd.Function):
    """Of symmetric positive definite matrices (n, d, d)."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        eigenvalues, vectors = torch.linalg.eigh(matrices)
        root = (vectors * eigenvalues.clamp(min=0).sqrt()[:, None]) @ vectors.mT
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return _solved(root, gradients[0])


class _Lyapunov(torch.autograd.Function):
    """The solutions X of S X + X S = B, for symmetric positive definite S."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, right: Tensor) -> Tensor:
        eigenvalues, vectors = torch.linalg.eigh(root)
        sums = eigenvalues[:, :, None] + eigenvalues[:, None, :]
        solution = vectors @ ((vectors.mT @ right @ vectors) / sums) @ vectors.mT
        ctx.save_for_backward(root, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        root, solution = ctx.saved_tensors
        adjoint = _solved(root, gradients[0])
        return -(adjoint @ solution.mT + solution.mT @ adjoint), adjoint


def _solved(root: Tensor, right: Tensor) -> Tensor:
    found: Tensor = _Lyapunov.apply(root, right)
    return found


def inverse_root(self_kernel: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""The roots and ranks of `_kernels.inverse_root`, as a function of the self-kernels.

    To a self-kernel K without full rank :math:`N = I - K K^+` is added, with the pseudo-inverse
    :math:`K^+`, and taken off the inverse root again: exact as long as ranks stay what they are.

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
    _, rank = _kernels.inverse_root(self_kernel.detach(), dtype)
    seen, outputs = (rank > 0)[:, None, None], self_kernel.shape[1]
    identity = torch.eye(outputs, dtype=self_kernel.dtype, device=self_kernel.device)
    kernel = torch.where(seen, self_kernel, identity)
    size = kernel.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    kernel, null = kernel / size, torch.zeros_like(identity)
    if bool((rank < outputs).any()):
        cutoff = _kernels.rank_cutoff(outputs, dtype)
        null = identity - kernel @ torch.linalg.pinv(kernel, rtol=cutoff, hermitian=True)
    found = torch.linalg.inv(_square_root(kernel + null)) - null
    return found * size.rsqrt() * seen, rank


def _square_root(matrices: Tensor) -> Tensor:
    if matrices.shape[1] == 1:
        return matrices.sqrt()
    found: Tensor = _SquareRoot.apply(matrices)
    return found
