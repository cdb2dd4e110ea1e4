"""Sums of the similarities of all pairs of samples in groups.

Index legend: n, m samples; o outputs of the network; q outputs after whitening; S groups; w the
elements of a parameter, flattened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .._kernels.blocks import squared_norms
from .._kernels.jacobian import Jacobian


def sum_over_pairs(jacobian: Jacobian, root: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the sums of k(x_n, x_m) over the pairs of each group, and over all pairs.

    Both include the pairs n = m. With J^(x_n) = root[n] J(x_n), k is <J^(x_n), J^(x_m)>. For each
    block the cheaper one of two ways is taken: one sum of gradients for each group, or all pairs.

    Parameters
    ----------
    jacobian : Jacobian
        The Jacobians J(x_n); the samples of each group are adjacent.
    root : Tensor of shape (n, q, o), float64
        Matrices that whiten the Jacobians.
    sizes : sequence of int
        Number of samples in each group.

    Returns
    -------
    within, total : Tensor of shape ()
        Sums over the pairs of samples of the same group, and over all pairs, float64.
    """
    groups = list(sizes)
    paired = {k: block for k, block in jacobian.blocks.items() if block.prefers_pairs(len(groups))}
    summed = {key: block for key, block in jacobian.blocks.items() if key not in paired}
    within, total = root.new_zeros(()), root.new_zeros(())
    for blocks, multiply in ((paired, multiply_pairs), (summed, multiply_sums)):
        if blocks:
            parts = multiply(replace(jacobian, blocks=blocks), root, groups)
            within, total = within + parts[0], total + parts[1]
    return within, total


def multiply_pairs(jacobian: Jacobian, root: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Return both sums of `sum_over_pairs` from the similarities of all pairs."""
    # Products of factors can leave the range of float32.
    whitened = jacobian.double().whiten(root)
    gram = whitened.trace_gram(whitened)
    diagonal = [rows.split(sizes, dim=1)[group] for group, rows in enumerate(gram.split(sizes))]
    return torch.stack([block.sum() for block in diagonal]).sum(), gram.sum()


def multiply_sums(jacobian: Jacobian, root: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Return both sums of `sum_over_pairs` from one sum of gradients for each group."""
    # s_S = sum_{n in S} J^(x_n) for each group S: one vector for each output q
    parts = zip(jacobian.split(sizes), root.split(sizes), strict=True)
    groups = [part.weighted_sum(part_root.mT) for part, part_root in parts]
    # sum_S ||s_S||^2 is the sum over the pairs of each group.
    within = torch.stack([squared_length(sums) for sums in groups]).sum()
    # ||sum_S s_S||^2 is the sum over all pairs.
    total = {name: torch.stack([sums[name] for sums in groups]).sum(dim=0) for name in groups[0]}
    return within, squared_length(total)


def squared_length(vectors: dict[str, Tensor]) -> Tensor:
    """Return the squared length of one vector over all parameters, given by parameter."""
    return torch.stack([squared_norms(vector).sum() for vector in vectors.values()]).sum()
