"""Landmarks for Nystroem's method, by randomly pivoted Cholesky on the gram of some candidates.

Index legend: c candidates; h held-out rows; m landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .projection import off_diagonal_error

# Similarities below so many eps are rounding: such a row adds nothing to the landmarks.
_ROUNDING = 64


@dataclass(frozen=True)
class Landmarks:
    """Landmarks in the order in which they were drawn.

    Attributes
    ----------
    indices : list of int
        Positions among the candidates.
    errors : list of float
        Root mean squared error of the kernel between held-out rows, after each landmark.
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
    r"""Randomly pivoted Cholesky: landmarks drawn in proportion to what is not covered yet.

    With :math:`r(x) = k(x, x) - K(x, Z) K(Z, Z)^{-1} K(Z, x)`, the next landmark is drawn from the
    candidates with probability :math:`r(x) / \sum r`; a duplicate of a landmark, or a zero
    gradient, has r = 0 and is never drawn [1]_.

    Parameters
    ----------
    gram : ndarray of shape (n, n)
        Similarities, those of the candidates first.
    candidates : int
        The number c.
    held_out : ndarray of shape (h,)
        Rows of the gram that the error is measured on.
    limit : int
        The most landmarks.
    kernel_error : float
        Stop at an error between held-out rows of at most this.
    eps : float
        Machine epsilon of the gradients.
    random_state : RandomState
        What draws.

    Returns
    -------
    pivots : Pivots
        Fewer than the limit where the error is reached, or where nothing is left to cover.

    References
    ----------
    .. [1] Y. Chen, E. Epperly, J. Tropp, R. Webber, "Randomly pivoted Cholesky: practical
       approximation of a kernel matrix with few entry evaluations", Communications on Pure and
       Applied Mathematics 78, 2025.
    """
    factor = np.empty((len(gram), min(limit, candidates)))
    residual = _eligible(gram.diagonal()[:candidates], eps)
    difference = gram[np.ix_(held_out, held_out)]
    pivots = Landmarks([], [])
    for step in range(factor.shape[1]):
        if not residual.any():
            break
        pivot = int(random_state.choice(candidates, p=residual / residual.sum()))
        column = gram[:, pivot] - factor[:, :step] @ factor[pivot, :step]
        factor[:, step] = column / np.sqrt(column[pivot])
        residual = _eligible(residual - factor[:candidates, step] ** 2, eps)
        residual[pivot] = 0
        difference -= np.outer(factor[held_out, step], factor[held_out, step])
        pivots.indices.append(pivot)
        pivots.errors.append(off_diagonal_error(difference))
        if pivots.errors[-1] <= kernel_error:
            break
    return pivots


def _eligible(residual: np.ndarray, eps: float) -> np.ndarray:
    return np.where(residual > _ROUNDING * eps, residual, 0.0)
