"""Check that no label is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def check_no_missing(y: Any) -> None:
    """Raise an error if a label is missing: NaN, None, NaT, pandas.NA, or masked.

    The string "nan" is missing, too, if numpy may have made it from a NaN among strings.
    """
    if y is None:
        return
    missing = _find_missing(y)
    is_missing = missing.reshape(len(missing), -1).any(axis=1)
    if is_missing.any():
        raise ValueError(
            "`y` must contain the label of each sample, because only labelled samples are fitted;"
            f" got {is_missing.sum()} of {len(missing)} labels missing (NaN or None), first in row"
            f" {is_missing.argmax()}. Pass only the labelled samples with their labels, and pass"
            " the others to query, as the pool."
        )


def _find_missing(y: Any) -> np.ndarray:
    """Return which labels are missing, in the shape of y."""
    if isinstance(y, Tensor):
        return y.isnan().cpu().numpy()
    if hasattr(y, "toarray"):
        y = y.toarray()
    # A list with a NaN among strings would become an array of strings.
    masked = np.ma.asarray(np.asanyarray(y, dtype=None if hasattr(y, "dtype") else object))
    labels, mask = np.ma.getdata(masked), np.ma.getmaskarray(masked)
    if labels.dtype.kind == "O":
        is_missing = np.array([_is_missing(value) for value in labels.flat], dtype=bool)
        return mask | is_missing.reshape(labels.shape)
    if labels.dtype.kind == "U":
        return mask | (labels == "nan")
    # Only NaN and NaT do not equal themselves.
    return mask | (labels != labels)


def _is_missing(value: Any) -> bool:
    """Return whether an object stands for a missing label; NaN and NaT do not equal themselves."""
    try:
        return value is None or bool(np.asarray(value != value).any())
    except TypeError:
        # pandas.NA has no truth value.
        return True
