"""From Jacobians to features: the ways there are, and what they have in common.

Index legend: n samples; d outputs of the network; P parameters; m features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from . import _feature_rows, _nystroem, _passes, _sketch
from ._inputs import Rows, labelled_part
from ._passes import Source


class Projection(Protocol):
    """A fitted map from samples to features, whose products are similarities."""

    @property
    def n_components(self) -> int:
        """The number m of features."""

    @property
    def kernel_error(self) -> float:
        """Root mean squared error of the similarity of rows that the map was not made from."""

    def transform(self, source: Source, X: Any, y: Any = None, verbose: Any = 0) -> np.ndarray:
        """Features of shape (n, m), in the dtype of the gradients."""


@dataclass(frozen=True)
class Exact:
    """The Jacobians themselves, m = d P, by one of `_kernels.WHITENINGS`."""

    n_components: int
    kernel_error: float = 0.0
    whitening: str = "unit"

    def transform(self, source: Source, X: Any, y: Any = None, verbose: Any = 0) -> np.ndarray:
        """Features of shape (n, m), in the dtype of the gradients."""
        features = _feature_rows.empty_features(source, len(Rows(X)), self.n_components)
        chunks = _passes.chunks(source, X, self.whitening, y)
        for chunk in _passes.shown(chunks, len(features), verbose):
            features[chunk.rows] = chunk.whitened().jacobian.materialize().flatten(1).cpu().numpy()
        return features


def fit_exact(
    source: Source,
    X: Any,
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
    _, jacobian = next(source.jacobians(*labelled_part(X, y, [0])))
    return Exact(jacobian.width)


#: Of (source, X, y, n_components, kernel_error, random_state).
METHODS: dict[str, Callable[..., Projection]] = {
    "exact": fit_exact,
    "nystroem": _nystroem.fit,
    "sketch": _sketch.fit,
}
