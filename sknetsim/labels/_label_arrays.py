"""Labels as arrays: checks, columns, and whether they are classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import type_of_target

from .._networks.samples.labels import check_labels

__all__ = ["check_labels", "is_classification", "is_numeric", "squeeze_column", "to_columns"]


def squeeze_column(labels: np.ndarray) -> np.ndarray:
    """Return labels of shape (n, 1) as shape (n,), and other labels unchanged."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def to_columns(y: Any) -> np.ndarray:
    """Return numeric labels as an array of shape (n, q), float64."""
    labels = check_labels(y)
    if not is_numeric(labels) or labels.ndim not in (1, 2):
        raise ValueError(
            "Unknown label type: `y` must be numbers with 1 or 2 axes; got dtype"
            f" {labels.dtype} with {labels.ndim} axes. Pass one row of numbers per sample."
        )
    return labels.astype(np.float64).reshape(len(labels), -1)


def is_numeric(labels: np.ndarray) -> bool:
    """Return whether labels are numbers, and not names."""
    return labels.dtype.kind in "fiub"


def is_classification(labels: np.ndarray) -> bool:
    """Return whether labels are names or whole numbers."""
    return type_of_target(labels) in ("binary", "multiclass")
