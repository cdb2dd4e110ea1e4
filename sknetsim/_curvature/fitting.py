"""Choice of a damped inverse of the curvature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .._kernels.jacobian import Jacobian
from .._networks.samples import Samples
from .kronecker_ridge import fit_kronecker
from .loss_derivatives import LossDerivatives
from .pair_ridges import fit_dual_ridge, fit_landmark_ridge
from .parameter_ridge import fit_parameter_ridge
from .sources import CombinationEngine, Ridge

#: Names of curvatures.
CURVATURES = ("ggn", "kfac", "ekfac", "none")


@dataclass(frozen=True)
class Identity(Ridge):
    """Identity in place of a damped inverse, which leaves the gradients unchanged.

    Attributes
    ----------
    n_elements : int
        The number P of elements of all parameters.
    """

    n_elements: int
    damping: float = 1.0

    @property
    def n_features(self) -> int:
        """Number P of features."""
        return self.n_elements

    def jacobians(
        self,
        source: CombinationEngine,
        X: Samples,
        start: int,
        factored: bool,
        products: Tensor | None = None,
    ) -> Iterator[tuple[slice, Jacobian]]:
        yield from source.jacobians(X, start, factored)


def check_curvature(curvature: str, name: str, allowed: Sequence[str]) -> None:
    """Raise an error if the result ``name`` cannot be computed with a curvature."""
    if curvature in allowed:
        return
    *others, last = map(repr, allowed)
    names = f"{', '.join(others)} or {last}" if others else last
    raise ValueError(
        f"`curvature` must be {names} for {name}; got {curvature!r}. Set another curvature, and"
        " call fit again."
    )


def fit_ridge(
    curvature: str,
    source: CombinationEngine,
    X: Samples,
    derivatives: LossDerivatives,
    damping: float,
    n_landmarks: int | None,
    random_state: np.random.RandomState,
) -> Ridge:
    """Return the damped inverse of the curvature at the fitted samples.

    Parameters
    ----------
    curvature : str
        One of `CURVATURES`.
    source : CombinationEngine
        The source of gradients.
    X : Samples of length n
        The fitted samples.
    derivatives : LossDerivatives
        Derivatives of the loss of the fitted samples; Hessians are not needed for "none".
    damping : float
        The number lambda, in units of the mean eigenvalue of H, or of each of its blocks for "kfac"
        and "ekfac".
    n_landmarks : int or None
        Number of landmarks; None for the exact curvature, in the parameters or in its dual form,
        whichever is smaller.
    random_state : RandomState
        Random number generator, by which landmarks are drawn.
    """
    if curvature != "ggn" and n_landmarks is not None:
        raise ValueError(
            "`n_components` must be None unless `curvature` is 'ggn', because only its inverse is"
            f" computed from landmarks; got {n_landmarks}. Set n_components=None."
        )
    if curvature == "none":
        return Identity(source.count_elements())
    roots = derivatives.compute_roots()
    if curvature != "ggn":
        return fit_kronecker(source, X, roots, damping, corrected=curvature == "ekfac")
    basis = derivatives.compute_basis()
    if n_landmarks is not None:
        return fit_landmark_ridge(source, X, roots, damping, basis, n_landmarks, random_state)
    # The curvature has at most as many eigenvalues that are not zero as there are combinations.
    if source.count_elements() <= len(X) * len(basis):
        return fit_parameter_ridge(source, X, roots, damping)
    return fit_dual_ridge(source, X, roots, damping, basis)
