"""Exact features: the whitened Jacobians themselves.

Index legend: n samples; d outputs of the network; P parameters; m features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._networks.samples import Samples
from .._passes.chunks import Source, iterate_chunks, with_progress
from .projection import allocate_features


@dataclass(frozen=True)
class Exact:
    """Whitened Jacobians as features, so that inner products of features are k^C.

    Attributes
    ----------
    n_components : int
        The number m = d P of features.
    kernel_error : float
        Root mean squared error of the similarity: 0.
    whitening : str
        One of `WHITENINGS`.
    """

    n_components: int
    kernel_error: float = 0.0
    whitening: str = "unit"

    def transform(self, source: Source, X: Samples, verbose: Any = 0) -> np.ndarray:
        """Return features of shape (n, m), in the dtype of the gradients."""
        features = allocate_features(source, len(X), self.n_components)
        chunks = iterate_chunks(source, X, self.whitening)
        for chunk in with_progress(chunks, len(features), verbose):
            # The whitened Jacobian of a sample, of shape (d, P), becomes one row of length d P.
            features[chunk.rows] = chunk.whitened().jacobian.materialize().flatten(1).cpu().numpy()
        return features


def fit_exact(
    source: Source,
    X: Samples,
    n_components: int | str | None,
    kernel_error: float,
    random_state: np.random.RandomState,
) -> Exact:
    """Return exact features, one for each entry of a Jacobian."""
    if n_components is not None:
        raise ValueError(
            "`n_components` must be None for method='exact', which has one feature for each entry"
            f" of a gradient; got {n_components!r}. Set n_components=None, or choose another"
            " method."
        )
    _, jacobian = next(source.jacobians(X.select([0])))
    return Exact(jacobian.width)
