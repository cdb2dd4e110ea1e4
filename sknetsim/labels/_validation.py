"""Labels as arrays: numbers, or classes.

Index legend: n samples; q columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.multiclass import type_of_target
from torch import Tensor


def check_labels(y: Any) -> np.ndarray:
    """Whatever labels come in, finite."""
    if y is None:
        raise ValueError("y is None; labels are needed here: hand over one for each row of X.")
    if isinstance(y, Tensor):
        y = (y.float() if y.is_floating_point() and y.dtype != torch.float64 else y).cpu().detach()
    labels = np.asarray(y)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("y contains NaN or infinity; all labels must be finite: drop such rows.")
    return labels


def squeeze_column(labels: np.ndarray) -> np.ndarray:
    """A single column as a row."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def to_columns(y: Any) -> np.ndarray:
    """(n, q), float64."""
    labels = check_labels(y)
    if labels.dtype.kind not in "fiub" or labels.ndim not in (1, 2):
        raise ValueError(
            f"Unknown label type: y has dtype {labels.dtype} and {labels.ndim} axes; allowed are"
            " numbers, one row per sample."
        )
    return labels.astype(np.float64).reshape(len(labels), -1)


def is_classification(labels: np.ndarray) -> bool:
    """Whether labels are names or whole numbers."""
    return type_of_target(labels) in ("binary", "multiclass")
