"""Damped inverse of the curvature in the space of the parameters.

Index legend: n samples; k combinations of outputs; w, v elements of all parameters (P of them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._kernels.blocks import DenseBlock
from .._kernels.jacobian import Jacobian
from .._networks.memory import check_within_budget
from .._networks.samples import Samples
from .sources import CURE, CombinationEngine, Ridge, compute_mean_eigenvalue


@dataclass(frozen=True)
class ParameterRidge(Ridge):
    """Cholesky factor of H + lambda, of shape (P, P), float64.

    Attributes
    ----------
    factor : Tensor of shape (P, P), float64
        The lower triangular C with C C^T = H + lambda.
    damping : float
        The number lambda.
    """

    factor: Tensor
    damping: float

    @property
    def n_features(self) -> int:
        """Number P of features."""
        return len(self.factor)

    def jacobians(
        self,
        source: CombinationEngine,
        X: Samples,
        start: int,
        factored: bool,
        products: Tensor | None = None,
    ) -> Iterator[tuple[slice, Jacobian]]:
        for rows, jacobian in source.jacobians(X, start):
            yield rows, self._precondition(jacobian)

    def _precondition(self, jacobian: Jacobian) -> Jacobian:
        """Return G C^{-T}, written out."""
        written = jacobian.materialize()
        factor = self.factor.to(written.device)
        # X C^T = G; the combinations of all samples are the rows of G.
        rows = torch.linalg.solve_triangular(
            factor.mT, written.flatten(0, 1).double(), upper=True, left=False
        )
        block = DenseBlock(jacobian.layout, rows.to(written).reshape(written.shape))
        return replace(jacobian, blocks={tuple(name for name, _ in jacobian.layout): block})


def fit_parameter_ridge(
    source: CombinationEngine, X: Samples, roots: Tensor, damping: float
) -> ParameterRidge:
    """Return the ridge of the fitted samples.

    Parameters
    ----------
    source : CombinationEngine
        The source of gradients.
    X : Samples of length n
        The fitted samples.
    roots : Tensor of shape (n, k, d)
        Weights of the outputs in the combinations A_n.
    damping : float
        The number lambda, in units of the mean eigenvalue of H.
    """
    size = source.count_elements()
    check_within_budget("The curvature of all parameters", 8 * size**2, CURE)
    curvature = torch.zeros(size, size, dtype=torch.float64)
    for _, jacobian in source.jacobians(X.with_labels(roots / math.sqrt(len(X)))):
        rows = jacobian.materialize().flatten(0, 1).double()
        # H[w,v] = sum_nk A[nk,w] A[nk,v]
        curvature += (rows.mT @ rows).cpu()
    absolute = damping * compute_mean_eigenvalue(float(curvature.trace()), size)
    curvature.diagonal().add_(absolute)
    return ParameterRidge(torch.linalg.cholesky(curvature), absolute)
