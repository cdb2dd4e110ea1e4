"""Landmarks for the Nystroem method, by randomly pivoted Cholesky decomposition.

Let Z be the landmarks drawn so far. The decomposition builds a factor F with one column for each
landmark, and F F^T = K(., Z) K(Z, Z)^{-1} K(Z, .) is the part of the gram matrix K that they span.
The residual K - F F^T is what they do not span.

Index legend: n rows of the gram matrix (the first c of them are the candidates); h held-out rows;
t steps, one for each landmark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .projection import off_diagonal_error

# A residual of at most this number times eps is rounding: the landmarks span the candidate.
_ROUNDING = 64


@dataclass(frozen=True)
class Landmarks:
    """Landmarks in the order in which they were drawn.

    Attributes
    ----------
    indices : list of int
        Indices of the landmarks among the candidates.
    errors : list of float
        Root mean squared error of the similarity of different held-out rows, after each landmark.
    """

    indices: list[int]
    errors: list[float]


def draw_landmarks(
    gram: np.ndarray,
    candidates: int,
    held_out: np.ndarray,
    limit: int,
    kernel_error: float,
    eps: float,
    random_state: np.random.RandomState,
) -> Landmarks:
    r"""Draw landmarks by randomly pivoted Cholesky decomposition of a gram matrix [1]_.

    The next landmark is drawn from the candidates with a probability proportional to the residual
    :math:`r(x) = k(x, x) - K(x, Z) K(Z, Z)^{-1} K(Z, x)`, which the landmarks Z so far do not span.
    A duplicate of a landmark, or a zero gradient, has r = 0 and is never drawn.

    Parameters
    ----------
    gram : ndarray of shape (n, n)
        Similarities of all rows, the candidates first.
    candidates : int
        The number c of candidates.
    held_out : ndarray of shape (h,)
        Indices of the rows on which the error is measured.
    limit : int
        The largest number of landmarks.
    kernel_error : float
        The error between held-out rows at which drawing stops.
    eps : float
        Machine epsilon of the dtype of the gradients.
    random_state : RandomState
        Random number generator.

    Returns
    -------
    landmarks : Landmarks
        The landmarks; fewer than the limit if the error is reached, or if the landmarks span all
        candidates.

    References
    ----------
    .. [1] Y. Chen, E. Epperly, J. Tropp, R. Webber, "Randomly pivoted Cholesky: practical
       approximation of a kernel matrix with few entry evaluations", Communications on Pure and
       Applied Mathematics 78, 2025.
    """
    factor = np.empty((len(gram), min(limit, candidates)))
    residual = _drop_rounding(gram.diagonal()[:candidates], eps)
    difference = gram[np.ix_(held_out, held_out)]
    landmarks = Landmarks([], [])
    for step in range(factor.shape[1]):
        if not residual.any():
            break
        # p(pivot = c) = r[c] / sum_c r[c]
        pivot = int(random_state.choice(candidates, p=residual / residual.sum()))
        # column[n] = K[n,pivot] - sum_{t < step} F[n,t] F[pivot,t]
        column = gram[:, pivot] - factor[:, :step] @ factor[pivot, :step]
        # F[n,step] = column[n] / sqrt(column[pivot])
        factor[:, step] = column / np.sqrt(column[pivot])
        # r[c] = K[c,c] - sum_{t <= step} F[c,t]^2
        residual = _drop_rounding(residual - factor[:candidates, step] ** 2, eps)
        # Exact arithmetic gives r[pivot] = 0.
        residual[pivot] = 0
        # difference[h,h'] = K[h,h'] - sum_{t <= step} F[h,t] F[h',t]
        difference -= np.outer(factor[held_out, step], factor[held_out, step])
        landmarks.indices.append(pivot)
        landmarks.errors.append(off_diagonal_error(difference))
        if landmarks.errors[-1] <= kernel_error:
            break
    return landmarks


def _drop_rounding(residual: np.ndarray, eps: float) -> np.ndarray:
    """Return the residual, with 0 where it is rounding."""
    return np.where(residual > _ROUNDING * eps, residual, 0.0)
