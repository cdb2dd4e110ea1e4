"""Products of activations and of cotangents at positions.

Index legend: n, m samples; o, p outputs; t, s positions; g groups; j channels of a group; q sums; r
elements of a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .blocks import sum_products


def sum_outer_products(vectors: Tensor) -> Tensor:
    """Return sum_r v[g,r,:] v[g,r,:]^T, of shape (g, j, j), float64, from v of shape (g, r, j)."""
    return sum_products(vectors.mT, vectors).double()


def multiply_positions(vectors: Tensor, others: Tensor, constant: float = 0.0) -> Tensor:
    """Return v[n,o,t,g] . v'[m,p,s,g] + constant, of shape (n, o, t, m, p, s, g).

    Both arguments have the shape (n, o, t, g, j). The products of a group are one matrix product.
    """
    # own[g,not,j], other[g,mps,j]
    own = vectors.permute(3, 0, 1, 2, 4).flatten(1, 3)
    other = others.permute(3, 0, 1, 2, 4).flatten(1, 3)
    if constant:
        product = torch.baddbmm(own.new_full((1, 1, 1), constant), own, other.mT)
    else:
        product = torch.bmm(own, other.mT)
    shape = (len(product), *vectors.shape[:3], *others.shape[:3])
    return product.view(shape).movedim(0, -1)


def weight_cotangents(cotangents: Tensor, weights: Tensor) -> Tensor:
    """Return sum_o weights[n,o,q] e[n,o,t,g,j], of shape (g, n t, q j)."""
    samples, outputs, *shape = cotangents.shape
    if outputs == weights.shape[2] == 1:
        weighted = cotangents * weights[..., None, None]
    else:
        weighted = torch.bmm(weights.mT, cotangents.flatten(2)).view(samples, -1, *shape)
    return weighted.permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)


def multiply_matrices(own: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> Tensor:
    """Return sum_ts (r_t . r'_s) (c_t . c'_s), of shape (n,), float64, see `split_matrix`."""
    rows, columns = (_multiply_vectors(*pair) for pair in zip(own, others, strict=True))
    return (rows * columns).sum(dim=(1, 2))


def _multiply_vectors(own: Tensor, others: Tensor) -> Tensor:
    """Return the products of vectors (n, t, r) and (n, s, r), of shape (n, t, s), float64.

    One-hot vectors are given as row numbers, of shape (n, t).
    """
    if own.ndim == others.ndim == 2:
        return (own[:, :, None] == others[:, None]).double()
    if others.ndim == 2:
        return _multiply_vectors(others, own).mT
    if own.ndim == 2:
        # r'_s[index_t]
        return others.gather(2, own[:, None].expand(-1, others.shape[1], -1)).double().mT
    return own.double() @ others.double().mT
