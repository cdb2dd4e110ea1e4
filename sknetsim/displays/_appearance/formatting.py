"""Values of samples, labels and predictions as text."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

# Number of values of an array, a list or a dict that are listed.
_LISTED_VALUES = 8

# End of a date that is stored as a point in time.
_MIDNIGHT = " 00:00:00"

# Text of a missing value.
MISSING = "missing"


def is_missing(value: Any) -> bool:
    """Return whether a value stands for a missing one: None, NaN, NaT, NA or masked."""
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim == 0 and is_missing(value.item())
    kinds = float | complex | np.number | np.datetime64 | np.timedelta64
    # NaN and NaT differ from themselves.
    return isinstance(value, kinds) and bool(value != value)


def format_value(value: Any) -> str:
    """Return a value as text: fractions with four digits, whole numbers with all digits.

    Missing values are "missing", dates have no time at midnight, and of several values the first
    ones and the last one are listed.
    """
    if is_missing(value):
        return MISSING
    if isinstance(value, float | np.floating):
        return f"{value:.15g}" if float(value).is_integer() else f"{value:.4g}"
    if isinstance(value, datetime.datetime):
        return str(value).removesuffix(_MIDNIGHT)
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[s]")).replace("T", " ").removesuffix(_MIDNIGHT)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "getbands"):  # an image of Pillow
        return f"image of {value.width} x {value.height} pixels"
    return _format_values(value)


def format_label(label: Any) -> str:
    """Return a label or a prediction as text, with commas between several values."""
    return ", ".join(map(format_value, np.atleast_1d(label)))


def _format_values(value: Any) -> str:
    """Return several values as text; a value of another type as its own text."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray) and value.ndim != 1:
        return f"array of shape {value.shape}" if value.ndim else format_value(value.item())
    if isinstance(value, Mapping):
        pairs = [f"{key}: {format_value(part)}" for key, part in value.items()]
        return ", ".join(abbreviate(pairs, _LISTED_VALUES))
    if isinstance(value, list | tuple | np.ndarray):
        chosen = abbreviate([*value], _LISTED_VALUES, None)
        return f"[{', '.join('…' if part is None else format_value(part) for part in chosen)}]"
    return str(value)


def format_name(name: Any) -> str:
    """Return the name of a column as text; the names of several levels are separated by commas."""
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def abbreviate(values: Sequence[Any], limit: int, gap: Any = "…") -> list[Any]:
    """Return the values, or, if there are more than a limit, the first ones, a gap and the last."""
    if len(values) <= limit:
        return [*values]
    return [*values[: limit - 2], gap, values[-1]]
