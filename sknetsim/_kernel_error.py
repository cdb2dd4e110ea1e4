"""How far products of features are from the similarities: measured, and reported."""

from __future__ import annotations

import numpy as np

from .exceptions import FewerComponentsWarning, warn


def off_diagonal_error(difference: np.ndarray) -> float:
    """Root mean square of the entries off the diagonal; 0 for a single row."""
    squares = difference**2
    np.fill_diagonal(squares, 0)
    return float(np.sqrt(squares.sum() / max(1, len(squares) * (len(squares) - 1))))


def warn_where_missed(error: float, kernel_error: float, components: int, cure: str) -> None:
    """Say so where "auto" ends above the error that was asked for."""
    if error > kernel_error:
        warn(
            f"kernel_error is {kernel_error:.2g}, but {components} components reach {error:.2g}"
            f" only: allow a larger kernel_error, or {cure}.",
            FewerComponentsWarning,
        )
