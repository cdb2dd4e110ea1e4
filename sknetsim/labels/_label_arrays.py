"""Labels as arrays: checks, columns, and whether they are classes."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch
from sklearn.utils.multiclass import type_of_target
from torch import Tensor


def check_labels(y: Any) -> np.ndarray:
    """Return the labels as an array; raise an error if some are missing or not finite.

    Names have a dtype of strings, also if the labels are objects, as in a pandas Series.
    """
    if y is None:
        raise ValueError("`y` must be the labels of X; got None. Pass one label per sample.")
    if isinstance(y, Tensor):
        # NumPy has no bfloat16.
        y = (y.float() if y.is_floating_point() and y.dtype != torch.float64 else y).cpu().detach()
    labels = np.asarray(y)
    if labels.dtype == object:
        labels = _convert_objects(labels)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("`y` must be finite; got NaN or infinity. Remove these samples.")
    return labels


def _convert_objects(labels: np.ndarray) -> np.ndarray:
    """Return labels of dtype object as numbers or strings; raise an error for other objects."""
    values = labels.ravel().tolist()
    for kind in (numbers.Real | np.bool_, str):
        if all(isinstance(value, kind) for value in values):
            return np.array(values).reshape(labels.shape)
    types = ", ".join(sorted({type(value).__name__ for value in values}))
    raise ValueError(
        "Unknown label type: `y` must contain only numbers, or only names of classes; got objects"
        f" of the types {types}. Remove samples without a label, and encode other labels."
    )


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
