"""How far products of features are from the similarities: measured, and reported."""

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
    """A fitted map from samples to features, whose products are similarities."""

    @property
    def n_components(self) -> int:
        """The number m of features."""

    @property
    def kernel_error(self) -> float:
        """Root mean squared error of the similarity of rows that the map was not made from."""

    def transform(self, source: Source, X: Samples, y: Any = None, verbose: Any = 0) -> np.ndarray:
        """Features of shape (n, m), in the dtype of the gradients."""


def allocate_features(source: Source, samples: int, width: int) -> np.ndarray:
    """Features to be filled, in the dtype of the gradients."""
    dtype = torch.empty(0, dtype=source.dtype).numpy().dtype
    cure = (
        "set a smaller n_components, choose fewer `parameters` (such as 'last_layer'), or hand over"
        " fewer rows at a time"
    )
    return allocate("Features", (samples, width), dtype, cure)


def compute_features(
    projection: Any, source: Source, X: Samples, y: Any = None, verbose: Any = 0
) -> np.ndarray:
    """What a `Projection` makes of the rows of X, by all workers."""
    samples, result = len(X), None
    for rows, part in map_samples(projection.transform, source, X, (y,), (), verbose):
        if len(part) == samples:
            result = part
            continue
        if result is None:
            result = allocate_features(source, samples, projection.n_components)
        result[rows] = part
    assert result is not None
    return result


def off_diagonal_error(difference: np.ndarray) -> float:
    """Root mean square of the entries off the diagonal; 0 for a single row."""
    squares = difference**2
    np.fill_diagonal(squares, 0)
    return float(np.sqrt(squares.sum() / max(1, len(squares) * (len(squares) - 1))))


def warn_if_missed(error: float, kernel_error: float, components: int, cure: str) -> None:
    """Say so where "auto" ends above the error that was asked for."""
    if error > kernel_error:
        warn(
            f"kernel_error is {kernel_error:.2g}, but {components} components reach {error:.2g}"
            f" only: allow a larger kernel_error, or {cure}.",
            FewerComponentsWarning,
        )
