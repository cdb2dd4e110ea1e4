"""How samples look to a person: as pictures, or as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._networks.inputs import Rows, is_on_disk, list_tensors


class Table(NamedTuple):
    """Some rows of a table, as words.

    Parameters
    ----------
    columns : list of str of length n_columns
        Their names.
    cells : ndarray of shape (n, n_columns) of str
        Their values.
    """

    columns: list[str]
    cells: np.ndarray


def is_image_like(X: Any, image_shape: Sequence[int] | None) -> bool:
    """Whether rows are images: they have several axes, or are given such a shape."""
    return image_shape is not None or (not _is_table(X) and _values(X, [0]).ndim > 2)


def render_images(X: Any, indices: Sequence[int], image_shape: Sequence[int] | None) -> np.ndarray:
    """Rows as images (n, height, width) or (n, height, width, channels), in [0, 1]."""
    found = to_images(X, indices, image_shape)
    return scale_to_unit(found, found.min(), found.max())


def to_images(X: Any, indices: Sequence[int], image_shape: Sequence[int] | None) -> np.ndarray:
    """Rows as images, grey or in three colours, in the range that they have."""
    rows = _values(X, indices).astype(float)
    if not np.isfinite(rows).all():
        bad = indices[int(np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(axis=1))[0])]
        raise ValueError(f"row {bad} has NaN or infinity, which no image can show: leave it out.")
    shape = tuple(rows.shape[1:]) if image_shape is None else _checked(image_shape, rows)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"rows have shape {shape}, which is no image's; allowed are (height, width), (channels,"
            " height, width) and (height, width, channels): say with image_shape which one it is."
        )
    found = rows.reshape(len(rows), *shape)
    return found if len(shape) == 2 else _in_colours(found)


def _checked(image_shape: Any, rows: np.ndarray) -> tuple[int, ...]:
    shape = tuple(image_shape) if isinstance(image_shape, tuple | list) else (image_shape,)
    whole = all(isinstance(size, int | np.integer) and size > 0 for size in shape)
    if not whole or len(shape) not in (2, 3) or np.prod(shape) != np.prod(rows.shape[1:]):
        raise ValueError(
            f"image_shape is {image_shape} and X has rows of shape {rows.shape[1:]}; allowed are"
            " (height, width), (channels, height, width) and (height, width, channels), of as many"
            " values as a row has: say which shape a row has."
        )
    return shape


def _in_colours(found: np.ndarray) -> np.ndarray:
    """Channels last, three or none: where first and last axis could be them, the first is."""
    of_channels = (1, 3, 4)
    if found.shape[1] in of_channels or found.shape[3] not in of_channels:
        found = np.moveaxis(found, 1, -1)
    return found[..., 0] if found.shape[-1] < 3 else found[..., :3]


def scale_to_unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """What lies between two numbers, in [0, 1]."""
    return np.asarray((values - low) / (high - low if high > low else 1))


def render_table(X: Any, indices: Sequence[int], columns: Sequence[str] | None = None) -> Table:
    """Rows as words, under the names that X has, those given, or numbers."""
    values = X.to_numpy()[list(indices)] if _is_table(X) else _values(X, indices)
    if values.ndim != 2:
        raise ValueError(
            f"X has rows of shape {values.shape[1:]}; allowed for a table are rows of one axis:"
            " flatten them, or say with image_shape how they are images."
        )
    columns = [*X.columns] if _is_table(X) else columns
    names = range(values.shape[1]) if columns is None else columns
    cells = [[format_value(value) for value in row] for row in values]
    return Table([str(name) for name in names], np.array(cells, dtype=object))


def _is_table(X: Any) -> bool:
    return hasattr(X, "columns") and hasattr(X, "to_numpy")


def _values(X: Any, indices: Sequence[int]) -> np.ndarray:
    """Of rows that hold several arrays, those of the first."""
    if isinstance(X, Tensor):
        rows = X.detach()[list(indices)].cpu()
        return (rows.float() if rows.dtype is torch.bfloat16 else rows).numpy()
    if isinstance(X, Dataset) or is_on_disk(X) or not hasattr(X, "dtype"):
        return list_tensors(Rows(X).at([int(index) for index in indices]))[0].numpy()
    return np.asarray(X[list(indices)])


def format_value(value: Any) -> str:
    """A value in four digits, whole numbers to the last one."""
    if isinstance(value, float | np.floating):
        return f"{value:.15g}" if float(value).is_integer() else f"{value:.4g}"
    return str(value)
