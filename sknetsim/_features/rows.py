"""Features as rows: made, and taken in place of a network.

Index legend: n samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._kernels.blocks import DenseBlock
from .._kernels.jacobian import Jacobian
from .._networks.fingerprint import fingerprint_samples
from .._networks.samples import Samples

# Exact features have length 1, those of landmarks less, those of short sketches more.
_LONGEST = 2


class FeatureRows:
    """Rows that are gradient features already: used as they are, never normalised again.

    Parameters
    ----------
    dtype : dtype
        The dtype of the gradients that they came from.
    n_jobs : int or None, default=1
        Workers for passes over the rows; one in each of these.
    """

    _CHUNK_ROWS = 1024

    def __init__(self, dtype: torch.dtype = torch.float64, n_jobs: int | None = 1):
        self.dtype = dtype
        self.n_jobs = n_jobs

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.dtype,)

    def jacobians(
        self, X: Samples, y: Any = None, start: int = 0, factored: bool = False
    ) -> Iterator[tuple[slice, Jacobian]]:
        """The rows as Jacobians of one output."""
        for first in range(start, len(X), self._CHUNK_ROWS):
            chunk = slice(first, min(first + self._CHUNK_ROWS, len(X)))
            features = check_features(X.take(chunk)).to(self.dtype)
            layout = (("features", features.shape[1:]),)
            block = DenseBlock(layout, features[:, None])
            yield chunk, FeatureJacobian({("features",): block}, layout, features[:, :1])

    def fingerprint(self, X: Samples, y: Any = None) -> str:
        """Of the rows."""
        return self.fingerprint_of_rows(X)

    def fingerprint_of_rows(self, X: Samples) -> str:
        """Of the rows."""
        return fingerprint_samples(X, self.dtype)

    def check_rows_independent(self, X: Samples) -> None:
        """Nothing is done to the rows."""

    def identity(self) -> str:
        """A word for rows that are features themselves."""
        return "features"


def check_features(features: Any) -> Tensor:
    """Rows that may be features, or an error."""
    is_tensor = isinstance(features, Tensor)
    shape = f"rows of shape {tuple(features.shape[1:])}" if is_tensor else "several arrays"
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(
            f"X has {shape}; with estimator='features' allowed are rows of gradient features, of"
            " shape (n_samples, n_features), as GradientFeaturizer gives them."
        )
    longest = float(features.double().norm(dim=1).max())
    if longest > _LONGEST:
        raise ValueError(
            f"X has rows of length up to {longest:.3g}; with estimator='features' allowed are"
            f" lengths up to {_LONGEST}, as GradientFeaturizer gives them: use its output."
        )
    return features


class FeatureJacobian(Jacobian):
    """Rows of features, whose whitening is done."""

    def roots(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Ones."""
        ones = kernel.new_ones(kernel.shape)
        return ones, ones[:, 0, 0].long()
