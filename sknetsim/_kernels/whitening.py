"""The mathematics on arrays: roots, k^N, k^C, its rotation forms, densities' normalisers.

Index legend: n, m samples; o, p outputs of the network (d of them).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def inverse_root(self_kernel: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""Pseudo-inverse square roots of the self-kernels and their ranks.

    :math:`K(x,x)^{-1/2}` from the eigen-decomposition in float64. Eigenvalues below
    ``10 * d * eps`` times the largest count as zero, and so do those of gradients shorter than the
    smallest normal number, which have no digits left.

    Parameters
    ----------
    self_kernel : Tensor of shape (n, d, d), float64
        The self-kernels K(x, x).
    dtype : dtype
        The dtype that the gradients were computed in.

    Returns
    -------
    root : Tensor of shape (n, d, d), float64
        The roots; zero for a zero gradient.
    rank : Tensor of shape (n,), int64
        Ranks of the self-kernels; 0 for a zero gradient.
    """
    eigenvalues, vectors = _eigen(self_kernel)
    cutoff = rank_cutoff(self_kernel.shape[-1], dtype) * eigenvalues[:, -1:]
    kept = (eigenvalues > cutoff) & (eigenvalues > torch.finfo(dtype).tiny ** 2)
    inverse = torch.where(kept, eigenvalues, 1.0).rsqrt() * kept
    root = (vectors * inverse[:, None]) @ vectors.mT
    return root, kept.sum(dim=1)


def rank_cutoff(outputs: int, dtype: torch.dtype) -> float:
    """Eigenvalues below so much of the largest count as zero."""
    return 10 * outputs * torch.finfo(dtype).eps


def _eigen(self_kernel: Tensor) -> tuple[Tensor, Tensor]:
    if self_kernel.shape[-1] == 1:
        return self_kernel[..., 0], torch.ones_like(self_kernel)
    eigenvalues, vectors = torch.linalg.eigh(self_kernel)
    return eigenvalues, vectors


def _no_whitening(root: Tensor, rank: Tensor) -> None:
    return None


def _half_whitening(root: Tensor, rank: Tensor) -> Tensor:
    return root


def _unit_whitening(root: Tensor, rank: Tensor) -> Tensor:
    return root * _rank_weights(rank)[:, None, None]


#: What acts on the output axis of J(x), from K(x,x)^{-1/2} and its rank r, so that products of
#: the results are: "none" K; "half" K^C = K(x,x)^{-1/2} K(x,x') K(x',x')^{-1/2}; "unit"
#: K^C / sqrt(r r'), whose trace is k^C.
WHITENINGS: dict[str, Callable[[Tensor, Tensor], Tensor | None]] = {
    "none": _no_whitening,
    "half": _half_whitening,
    "unit": _unit_whitening,
}


def _trace(kernel: Tensor) -> Tensor:
    return kernel.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _nuclear(kernel: Tensor) -> Tensor:
    return torch.linalg.svdvals(kernel).sum(dim=-1)


def _special_nuclear(kernel: Tensor) -> Tensor:
    values = torch.linalg.svdvals(kernel)
    reflected = torch.linalg.det(kernel) < 0
    return values.sum(dim=-1) - 2 * reflected * values[..., -1]


#: What a d x d kernel is reduced to: max over the group's R of tr(R K).
METRICS = {"trace": _trace, "rotation": _special_nuclear, "orthogonal": _nuclear}


def reduce_kernel(kernel: Tensor, metric: str, rank: Tensor, other_rank: Tensor) -> Tensor:
    """One value per pair: the metric of K, divided by sqrt(r r') (0 where a rank is 0)."""
    weights = _rank_weights(rank)[:, None] * _rank_weights(other_rank)[None, :]
    return METRICS[metric](kernel) * weights


def influence_kernel(half: Tensor, root: Tensor) -> Tensor:
    """k^N = K(x',x) K(x,x)^{-1} of shape (n, m, p, o), from K(x,x)^{-1/2} K(x,x') (n, m, o, p)."""
    return torch.einsum("nao,nmop->nmpa", root, half)


def _rank_weights(rank: Tensor) -> Tensor:
    return torch.where(rank > 0, rank, 1).double().rsqrt() * (rank > 0)
