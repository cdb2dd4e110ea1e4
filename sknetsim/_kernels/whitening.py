"""Inverse roots of self-kernels, whitenings of Jacobians, and reductions of d x d kernels.

Index legend: n, m samples; o, p, a outputs of the network (d of them); r the rank of K(x, x).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def inverse_root(self_kernel: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the pseudo-inverse square roots of the self-kernels, and their ranks.

    With the eigendecomposition :math:`K(x,x) = V \Lambda V^T`, computed in float64, the root is
    :math:`K(x,x)^{-1/2} = V \Lambda^{-1/2} V^T`. The inverse of a zero eigenvalue is 0. An
    eigenvalue counts as zero if it is at most ``10 * d * eps`` times the largest one, because
    whitening would enlarge the rounding errors of the gradients too much. It also counts as zero if
    it is at most the square of the smallest normal number of ``dtype``, because shorter gradients
    have lost their digits.

    An output, or a combination of outputs, is dropped if its eigenvalue counts as zero although it
    is larger than the rounding errors, see `rounding_level`. An eigenvalue up to that level is
    taken for an exact zero, which follows from the construction of the network: the sum of
    log-probabilities, weighted by the probabilities, has no gradient.

    Parameters
    ----------
    self_kernel : Tensor of shape (n, d, d), float64
        The self-kernels K(x, x).
    dtype : dtype
        The dtype in which the gradients were computed.

    Returns
    -------
    root : Tensor of shape (n, d, d), float64
        The roots; zero for a zero gradient.
    rank : Tensor of shape (n,), int64
        Ranks of the self-kernels; 0 for a zero gradient.
    dropped : Tensor of shape (n,), int64
        Numbers of dropped outputs; 0 for a zero gradient.
    """
    eigenvalues, vectors = _decompose(self_kernel)
    outputs, largest = self_kernel.shape[-1], eigenvalues[:, -1:]
    nonzero = eigenvalues > torch.finfo(dtype).tiny ** 2
    positive = (eigenvalues > rank_cutoff(outputs, dtype) * largest) & nonzero
    resolved = (eigenvalues > rounding_level(outputs, dtype) * largest) & nonzero
    inverse_roots = torch.where(positive, eigenvalues, 1.0).rsqrt() * positive
    # root[n,o,p] = sum_a V[n,o,a] lambda[n,a]^{-1/2} V[n,p,a]
    root = (vectors * inverse_roots[:, None]) @ vectors.mT
    rank = positive.sum(dim=1)
    return root, rank, resolved.sum(dim=1) - rank


def identity_root(self_kernel: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the results of `inverse_root` if nothing is whitened, without a decomposition.

    The roots are the identity, the ranks d, or 0 for a zero gradient, and no output is dropped.
    """
    diagonal = self_kernel.diagonal(dim1=-2, dim2=-1)
    nonzero = (diagonal > torch.finfo(dtype).tiny ** 2).any(dim=-1)
    rank = nonzero * diagonal.shape[-1]
    # All samples share the memory of one identity.
    identity = torch.eye(diagonal.shape[-1]).to(self_kernel)
    return identity.expand_as(self_kernel), rank, torch.zeros_like(rank)


def rank_cutoff(outputs: int, dtype: torch.dtype) -> float:
    """Return the ratio to the largest eigenvalue up to which an eigenvalue counts as zero."""
    return 10 * outputs * torch.finfo(dtype).eps


def rounding_level(outputs: int, dtype: torch.dtype) -> float:
    """Return the ratio to the largest eigenvalue up to which an eigenvalue may be rounding error.

    An eigenvalue is the squared length of a combination of gradients. If the exact combination is
    zero, the computed one has a length of a few eps times that of the longest one. Its square was
    at most 6.4 eps^2 in float32, for softmax, log-softmax, normalised, centred and repeated outputs
    and frozen decoders, with up to 1,000 outputs and 30 layers. Kernels are computed in float64, so
    an eigenvalue up to the cut-off of float64 may also be a rounding error. In float64, that level
    is the cut-off itself, so no output counts as dropped.
    """
    return max((5 * torch.finfo(dtype).eps) ** 2, rank_cutoff(outputs, torch.float64))


def _decompose(self_kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (n, d) in ascending order, and the eigenvectors (n, d, d)."""
    if self_kernel.shape[-1] == 1:
        return self_kernel[..., 0], torch.ones_like(self_kernel)
    eigenvalues, vectors = torch.linalg.eigh(self_kernel)
    return eigenvalues, vectors


def _no_whitening(root: Tensor, rank: Tensor) -> None:
    return None


def _half_whitening(root: Tensor, rank: Tensor) -> Tensor:
    return root


def _unit_whitening(root: Tensor, rank: Tensor) -> Tensor:
    return root * _inverse_root_rank(rank)[:, None, None]


#: The d x d matrix W(x) that whitens a Jacobian, from K(x,x)^{-1/2} and its rank r. Products of the
#: whitened Jacobians J^(x) = W(x) J(x) are
#: "none": K, since W is the identity (None);
#: "half": K^C = K(x,x)^{-1/2} K(x,x') K(x',x')^{-1/2};
#: "unit": K^C / sqrt(r r'), whose trace is k^C.
WHITENINGS: dict[str, Callable[[Tensor, Tensor], Tensor | None]] = {
    "none": _no_whitening,
    "half": _half_whitening,
    "unit": _unit_whitening,
}


def _trace(kernel: Tensor) -> Tensor:
    return kernel.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _nuclear_norm(kernel: Tensor) -> Tensor:
    # s_1 + ... + s_d
    return torch.linalg.svdvals(kernel).sum(dim=-1)


def _special_nuclear_norm(kernel: Tensor) -> Tensor:
    # s_1 + ... + s_{d-1} + sign(det K) s_d
    values = torch.linalg.svdvals(kernel)
    reflected = torch.linalg.det(kernel) < 0
    return values.sum(dim=-1) - 2 * reflected * values[..., -1]


#: Reductions of a d x d kernel K to one number: the maximum of tr(R K) over all R in a group. The
#: groups are {1}, SO(d) and O(d). With the singular values s_1 >= ... >= s_d of K, the maximum is
#: tr K, s_1 + ... + sign(det K) s_d, or s_1 + ... + s_d.
METRICS = {"trace": _trace, "rotation": _special_nuclear_norm, "orthogonal": _nuclear_norm}


def reduce_kernel(kernel: Tensor, metric: str, rank: Tensor, other_rank: Tensor) -> Tensor:
    """Return the metric of K / sqrt(r r') for each pair, of shape (n, m); 0 if a rank is 0."""
    scales = _inverse_root_rank(rank)[:, None] * _inverse_root_rank(other_rank)[None, :]
    return METRICS[metric](kernel) * scales


def influence_kernel(half: Tensor, root: Tensor) -> Tensor:
    """Return k^N = K(x',x) K(x,x)^{-1}, of shape (n, m, p, a).

    With ``half`` = K(x,x)^{-1/2} K(x,x') of shape (n, m, o, p) and ``root`` = K(x,x)^{-1/2} of
    shape (n, a, o), it is the transpose of root half, since K(x',x) = K(x,x')^T.
    """
    return torch.einsum("nao,nmop->nmpa", root, half)


def _inverse_root_rank(rank: Tensor) -> Tensor:
    """Return r^{-1/2}, or 0 if r = 0, float64."""
    return torch.where(rank > 0, rank, 1).double().rsqrt() * (rank > 0)
