"""From Jacobians to features: the ways there are, and what they have in common.

Index legend: n samples; d outputs of the network; P parameters; m features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._networks.samples import Samples, select_labels
from .._passes.chunks import Source, iterate_chunks, with_progress
from .projection import allocate_features


@dataclass(frozen=True)
class Exact:
    """The Jacobians themselves, m = d P, by one of `_kernels.WHITENINGS`."""

    n_components: int
    kernel_error: float = 0.0
    whitening: str = "unit"

    def transform(self, source: Source, X: Samples, y: Any = None, verbose: Any = 0) -> np.ndarray:
        """Features of shape (n, m), in the dtype of the gradients."""
        features = allocate_features(source, len(X), self.n_components)
        chunks = iterate_chunks(source, X, self.whitening, y)
        for chunk in with_progress(chunks, len(features), verbose):
            features[chunk.rows] = chunk.whitened().jacobian.materialize().flatten(1).cpu().numpy()
        return features


def fit_exact(
    source: Source,
    X: Samples,
    y: Any,
    n_components: int | str | None,
    kernel_error: float,
    random_state: np.random.RandomState,
) -> Exact:
    """Nothing to fit: as many features as a Jacobian has entries."""
    if n_components is not None:
        raise ValueError(
            f"n_components is {n_components!r} and method is 'exact', which has as many features"
            " as gradients have entries; allowed is None: or choose another method."
        )
    _, jacobian = next(source.jacobians(X.select([0]), select_labels(y, [0])))
    return Exact(jacobian.width)
