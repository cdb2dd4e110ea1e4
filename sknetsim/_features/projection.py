"""Projections of samples to features, the error of their inner products, and its warning."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from .._networks.memory import allocate
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.parallel import map_samples
from ..exceptions import FewerComponentsWarning, warn


class Projection(Protocol):
    """Fitted map from n samples to m features, whose inner products approximate k^C."""

    @property
    def n_components(self) -> int:
        """Number m of features."""

    @property
    def kernel_error(self) -> float:
        """Root mean squared error of the similarity of different samples."""

    def transform(self, source: Source, X: Samples, verbose: Any = 0) -> np.ndarray:
        """Return features of shape (n, m), in the dtype of the gradients."""


def allocate_features(source: Source, samples: int, width: int) -> np.ndarray:
    """Return an array for features of shape (samples, width), in the dtype of the gradients."""
    dtype = torch.empty(0, dtype=source.dtype).numpy().dtype
    cure = (
        "Set a smaller `n_components`, choose fewer `parameters` (such as 'last_layer'), or pass"
        " fewer samples at a time"
    )
    return allocate("Features", (samples, width), dtype, cure)


def compute_features(
    projection: Projection, source: Source, X: Samples, verbose: Any = 0
) -> np.ndarray:
    """Return the features of X by a `Projection`, of shape (n, m), computed by all workers."""
    samples, features = len(X), None
    for rows, part in map_samples(projection.transform, source, X, verbose=verbose):
        if len(part) == samples:
            # A single worker returns all features, which are not copied.
            features = part
            continue
        if features is None:
            features = allocate_features(source, samples, projection.n_components)
        features[rows] = part
    assert features is not None
    return features


def off_diagonal_error(difference: np.ndarray) -> float:
    """Return the root mean square of the entries off the diagonal; 0 for a single row."""
    squares = difference**2
    np.fill_diagonal(squares, 0)
    return float(np.sqrt(squares.sum() / max(1, len(squares) * (len(squares) - 1))))


def warn_if_missed(error: float, kernel_error: float, components: int, cure: str) -> None:
    """Warn if the features that "auto" chooses miss the requested kernel error."""
    if error > kernel_error:
        warn(
            f"`kernel_error` {kernel_error:.2g} was not reached: the similarities of"
            f" {components} features have an error of {error:.2g}. Set a larger `kernel_error`, or"
            f" {cure}.",
            FewerComponentsWarning,
        )
