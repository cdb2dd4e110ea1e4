"""Damped inverses of the curvature from products of gradients with those of fitted samples.

The rows of A are the combinations A_m / sqrt(N) of N fitted samples, so that H = A^T A. The rows of
Z are combinations of the gradients at some or all fitted samples, the landmarks.

Index legend: n samples; m landmarks; j, k combinations of outputs; f features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.lapack import dpstrf
from torch import Tensor

from .._kernels.blocks import Block, DenseBlock
from .._kernels.jacobian import Jacobian
from .._networks.memory import check_within_budget
from .._networks.samples import Samples
from .._passes.chunks import Chunk
from .._passes.reductions import compute_pair_matrix
from ..exceptions import describe_integers
from .sources import (
    CURE,
    CombinationEngine,
    CombinedJacobian,
    Ridge,
    compute_mean_eigenvalue,
)

# Number of samples whose features are yielded at a time.
_CHUNK_SAMPLES = 1024

# Largest share of the weights of outputs that rounding explains.
_ROUNDING = 1e-5

# Matrices of the size of the gram matrix that are held at the same time in `fit_dual_ridge`.
_HELD_MATRICES = 6

_NO_WHITENINGS = ("none", "none")


def multiply_pairs(source: CombinationEngine, X: Samples, Y: Samples | None = None) -> Tensor:
    """Return the products <G_j(x_n), G_k(y_m)> of two sets, of shape (n j, m k), float64.

    The labels are the weights of the combinations. Without Y, the products within X are returned.
    """
    grams = compute_pair_matrix(source, X, Y, _NO_WHITENINGS, _gram)
    rows, columns, combinations, other_combinations = grams.shape
    grams = grams.transpose(0, 2, 1, 3)
    return torch.from_numpy(
        np.ascontiguousarray(grams).reshape(rows * combinations, columns * other_combinations)
    )


def _gram(rows: Chunk, columns: Chunk) -> Tensor:
    return rows.jacobian.gram(columns.jacobian)


@dataclass(frozen=True)
class PairRidge(Ridge):
    """Base class of the ridges that need products with the gradients Z of landmarks.

    Attributes
    ----------
    landmarks : Samples
        The samples z_m, whose labels of shape (m, k, d) are the weights of the outputs in the
        combinations Z.
    transform : Tensor of shape (m k, f), float64
        Matrix T of the features G Z^T T.
    damping : float
        The number lambda.
    eps : float
        Machine epsilon of the dtype of the gradients.
    """

    landmarks: Samples
    transform: Tensor
    damping: float
    eps: float

    @property
    def n_features(self) -> int:
        """Number f of features."""
        return self.transform.shape[1]

    def multiply(self, source: CombinationEngine, X: Samples) -> Tensor:
        """Return the features of the samples, of shape (n, j, f), float64."""
        features = multiply_pairs(source, X, self.landmarks) @ self.transform
        return features.unflatten(0, (len(X), -1))


@dataclass(frozen=True)
class LandmarkRidge(PairRidge):
    """Ridge in the span of the landmarks' gradients.

    Q = Z^T R is an orthonormal basis of the span, and S = Q^T H Q the curvature in it. With
    S + lambda = C C^T and T = R C^{-T}, products of the features G Z^T T are
    G Q (S + lambda)^{-1} Q^T G'^T: gradients beyond the span are left out.

    Attributes
    ----------
    root : Tensor of shape (m k, f), float64
        The matrix R.
    """

    root: Tensor

    def measure_rest(self, source: CombinationEngine, X: Samples) -> Tensor:
        projected = multiply_pairs(source, X, self.landmarks) @ self.root
        squares = projected.square().sum(dim=1).unflatten(0, (len(X), -1))
        # |G (1 - Q Q^T)|^2 = |G|^2 - |G Q|^2; rounding can make it negative.
        return (_measure_squares(source, X) - squares).clamp_min(0) / self.damping

    def jacobians(
        self,
        source: CombinationEngine,
        X: Samples,
        start: int,
        factored: bool,
        products: Tensor | None = None,
    ) -> Iterator[tuple[slice, Jacobian]]:
        features = self.multiply(source, X) if products is None else products
        layout = (("ridge", features.shape[2:]),)
        for first in range(start, len(features), _CHUNK_SAMPLES):
            own = features[first : first + _CHUNK_SAMPLES]
            rows = slice(first, first + len(own))
            blocks: dict[tuple[str, ...], Block] = {("ridge",): DenseBlock(layout, own)}
            yield rows, CombinedJacobian(blocks, layout, own[:, :, 0])


@dataclass(frozen=True)
class DualRidge(LandmarkRidge):
    """Exact ridge, of which all fitted samples are landmarks.

    The gradients of the losses of all fitted samples are in the span, so a part of a query's
    gradient beyond the span has a zero product with them. The Woodbury identity would need one
    factorisation less, but its difference of two large numbers loses all digits of float32 if
    lambda is much smaller than the eigenvalues of H, as in networks with many parameters.

    Attributes
    ----------
    basis : Tensor of shape (k, d), float64
        The combinations of outputs in Z.
    features : Tensor of shape (m, k, f), float64
        Features of Z.
    """

    basis: Tensor
    features: Tensor

    def multiply_fitted(self, source: CombinationEngine, X: Samples) -> Tensor:
        """Return the features of all fitted samples, of shape (n, j, f), float64.

        They are computed from the products that the span was computed from. Products
        computed again would have other rounding errors, which directions of small eigenvalues
        magnify.
        """
        assert X.labels is not None
        # G = W J, and W = W basis^T basis + a rest, to which no loss is sensitive.
        inside = X.labels @ self.basis.mT
        rest = X.labels - inside @ self.basis
        features = inside @ self.features
        if bool((rest.norm(dim=2) > _ROUNDING * X.labels.norm(dim=2)).any()):
            features = features + self.multiply(source, X.with_labels(rest))
        return features


def fit_dual_ridge(
    source: CombinationEngine, X: Samples, roots: Tensor, damping: float, basis: Tensor
) -> DualRidge:
    """Return the exact ridge of the fitted samples; see `fit_landmark_ridge` for the parameters."""
    samples, combinations = len(X), len(basis)
    size = 8 * _HELD_MATRICES * (samples * combinations) ** 2
    check_within_budget("The products of the gradients of all samples", size, CURE)
    landmarks = X.with_labels(basis.expand(samples, -1, -1))
    gram = multiply_pairs(source, landmarks)
    root = _invert_root(gram, torch.finfo(source.dtype).eps)
    # A_n = B_n basis^T Z_n / sqrt(N), because the basis spans the rows of each B_n.
    weights = roots @ basis.mT / math.sqrt(samples)
    projected = weights @ (gram @ root).unflatten(0, (samples, combinations))
    own = gram.view(samples, combinations, samples, combinations).diagonal(dim1=0, dim2=2)
    # tr H = sum_n tr(A_n A_n^T)
    trace = float(torch.einsum("nkb,bcn,nkc->", weights, own, weights))
    absolute = damping * compute_mean_eigenvalue(trace, source.count_elements())
    transform = _whiten_root(root, projected.flatten(0, 1), absolute)
    features = (gram @ transform).unflatten(0, (samples, combinations))
    eps = torch.finfo(source.dtype).eps
    return DualRidge(landmarks, transform, absolute, eps, root, basis, features)


def fit_landmark_ridge(
    source: CombinationEngine,
    X: Samples,
    roots: Tensor,
    damping: float,
    basis: Tensor,
    n_landmarks: int,
    random_state: np.random.RandomState,
) -> LandmarkRidge:
    """Return the ridge in the span of the gradients of randomly drawn fitted samples.

    Parameters
    ----------
    source, X, roots, damping
        See `fit_parameter_ridge`.
    basis : Tensor of shape (k, d), float64
        Combinations of outputs whose gradients at the landmarks form the rows of Z.
    n_landmarks : int
        Number of landmarks.
    random_state : RandomState
        Random number generator.
    """
    if n_landmarks > len(X):
        raise ValueError(
            f"`n_components` must be {describe_integers(1, len(X))} (the number of samples from"
            f" which landmarks are drawn); got {n_landmarks}. Set a smaller `n_components`, or fit"
            " more samples."
        )
    chosen = np.sort(random_state.permutation(len(X))[:n_landmarks]).tolist()
    rows = X.with_labels(roots / math.sqrt(len(X)))
    # tr H is the sum of the squared norms of the rows of A.
    trace = float(_measure_squares(source, rows).sum())
    absolute = damping * compute_mean_eigenvalue(trace, source.count_elements())
    landmarks = X.select(chosen).with_labels(basis.expand(len(chosen), -1, -1))
    eps = torch.finfo(source.dtype).eps
    root = _invert_root(multiply_pairs(source, landmarks), eps)
    # A Q = A Z^T R
    projected = multiply_pairs(source, rows, landmarks) @ root
    transform = _whiten_root(root, projected, absolute)
    return LandmarkRidge(landmarks, transform, absolute, eps, root)


def _whiten_root(root: Tensor, projected: Tensor, damping: float) -> Tensor:
    """Return T = R C^{-T} with S + lambda = C C^T, from the projected gradients A Q."""
    damped = projected.mT @ projected
    damped.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        # A lambda below the rounding errors of S: C = V diag(s + lambda)^{1/2}
        damped.diagonal().sub_(damping)
        values, vectors = torch.linalg.eigh(damped)
        return root @ vectors * (values.clamp_min(0) + damping).rsqrt()
    return torch.linalg.solve_triangular(factor.mT, root, upper=True, left=False)


def _invert_root(gram: Tensor, eps: float) -> Tensor:
    """Return R of shape (m k, r), so that Z^T R is an orthonormal basis of the span of Z.

    ``gram`` is Z Z^T, and r its rank up to rounding.
    """
    # The rows of Z are first scaled to length 1, because some are much shorter than others.
    lengths = gram.diagonal().sqrt()
    scales = torch.where(lengths > 0, 1 / lengths, 0.0)
    scaled = (scales[:, None] * gram * scales).numpy()
    # Rows of Z are chosen that have a part beyond the span of those before, up to rounding.
    factor, pivots, rank, _ = dpstrf(scaled, tol=len(gram) * eps, lower=1)
    chosen = torch.from_numpy(pivots[:rank].astype(np.int64) - 1)
    root = torch.zeros(len(gram), rank, dtype=torch.float64)
    root[chosen, torch.arange(rank)] = scales[chosen]
    # R = D L^{-T}, with D G D = L L^T at the chosen rows
    lower = torch.from_numpy(np.tril(factor[:rank, :rank]))
    return torch.linalg.solve_triangular(lower.mT, root, upper=True, left=False)


def _measure_squares(source: CombinationEngine, X: Samples) -> Tensor:
    """Return the squared norms of all combinations, of shape (n, k), float64."""
    kernels = [jacobian.for_sums().self_kernel().cpu() for _, jacobian in source.jacobians(X)]
    return torch.cat(kernels).diagonal(dim1=1, dim2=2)
