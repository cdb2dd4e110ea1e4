"""Samples as images, or as rows of a table, for the displays and the explorer.

Index legend: n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._networks.batches import is_on_disk, list_tensors
from .._networks.samples import RawSamples


class Table(NamedTuple):
    """Rows of a table as text.

    Parameters
    ----------
    columns : list of str of length n_columns
        Names of the columns.
    cells : ndarray of shape (n, n_columns) of str
        Values of the cells.
    """

    columns: list[str]
    cells: np.ndarray


def is_image_like(X: Any, image_shape: Sequence[int] | None) -> bool:
    """Return whether samples are drawn as images: they have several axes, or a given shape."""
    return image_shape is not None or (not _is_table(X) and _select_values(X, [0]).ndim > 2)


def render_images(X: Any, indices: Sequence[int], image_shape: Sequence[int] | None) -> np.ndarray:
    """Return samples as images with values in [0, 1].

    Parameters
    ----------
    X : array-like, Tensor or Dataset
        All samples.
    indices : sequence of int of length n
        Positions of the samples in X.
    image_shape : tuple of int or None
        Shape of a sample as an image. None: its own shape.

    Returns
    -------
    images : ndarray of shape (n, height, width) or (n, height, width, 3), float64
        0 is the smallest value of all these samples and 1 the largest.
    """
    images = to_images(X, indices, image_shape)
    return scale_to_unit(images, images.min(), images.max())


def to_images(X: Any, indices: Sequence[int], image_shape: Sequence[int] | None) -> np.ndarray:
    """Return samples as grey or coloured images, in their own range of values.

    Parameters
    ----------
    X, indices, image_shape
        See `render_images`.

    Returns
    -------
    images : ndarray of shape (n, height, width) or (n, height, width, 3), float64
        The images. With one or two channels, the first one is drawn; with four or more channels,
        the first three.
    """
    values = _select_values(X, indices).astype(float)
    if not np.isfinite(values).all():
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        first = indices[int(np.argmin(finite))]
        raise ValueError(
            f"Images must be finite; got NaN or infinity in sample {first}. Leave it out, or impute"
            " its pixels in the images that are drawn."
        )
    shape = values.shape[1:] if image_shape is None else _check_image_shape(image_shape, values)
    if len(shape) not in (2, 3):
        raise ValueError(
            "Samples must have the shape of an image: (height, width), (channels, height, width) or"
            f" (height, width, channels); got {shape}. Set `image_shape`."
        )
    images = values.reshape(len(values), *shape)
    return images if len(shape) == 2 else _move_channels(images)


def _check_image_shape(image_shape: Any, values: np.ndarray) -> tuple[int, ...]:
    """Return the shape of an image as a tuple; raise if samples do not fit it."""
    shape = tuple(image_shape) if isinstance(image_shape, tuple | list) else (image_shape,)
    is_positive = all(isinstance(size, int | np.integer) and size > 0 for size in shape)
    if not is_positive or len(shape) not in (2, 3) or np.prod(shape) != np.prod(values.shape[1:]):
        raise ValueError(
            "`image_shape` must be (height, width), (channels, height, width) or (height, width,"
            f" channels), with as many values as a sample of shape {values.shape[1:]}; got"
            f" {image_shape}. Set it to the shape of a sample as an image."
        )
    return shape


def _move_channels(images: np.ndarray) -> np.ndarray:
    """Return coloured images with three channels on the last axis, and grey ones without that axis.

    The channels are on the first axis of a sample if its length is 1, 3 or 4, or if the length of
    the last axis is not.
    """
    channels = (1, 3, 4)
    if images.shape[1] in channels or images.shape[3] not in channels:
        images = np.moveaxis(images, 1, -1)
    return images[..., 0] if images.shape[-1] < 3 else images[..., :3]


def scale_to_unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values scaled so that ``low`` is 0 and ``high`` is 1."""
    return np.asarray((values - low) / (high - low if high > low else 1))


def render_table(X: Any, indices: Sequence[int], columns: Sequence[str] | None = None) -> Table:
    """Return samples as rows of a table.

    Parameters
    ----------
    X : array-like, DataFrame, Tensor or Dataset
        All samples.
    indices : sequence of int of length n
        Positions of the samples in X.
    columns : list of str or None, default=None
        Names of the columns if X has none. None: their numbers.

    Returns
    -------
    table : Table
        Names and cells.
    """
    values = X.to_numpy()[list(indices)] if _is_table(X) else _select_values(X, indices)
    if values.ndim != 2:
        raise ValueError(
            f"Samples must have one axis to be rows of a table; got shape {values.shape[1:]}."
            " Flatten them, or set `image_shape` to draw them as images."
        )
    columns = [*X.columns] if _is_table(X) else columns
    names = range(values.shape[1]) if columns is None else columns
    cells = [[format_value(value) for value in row] for row in values]
    return Table([str(name) for name in names], np.array(cells, dtype=object))


def _is_table(X: Any) -> bool:
    return hasattr(X, "columns") and hasattr(X, "to_numpy")


def _select_values(X: Any, indices: Sequence[int]) -> np.ndarray:
    """Return the values of some samples; if a sample has several arrays, those of the first."""
    if isinstance(X, Tensor):
        values = X.detach()[list(indices)].cpu()
        # numpy has no bfloat16.
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    if isinstance(X, Dataset) or is_on_disk(X) or not hasattr(X, "dtype"):
        return list_tensors(RawSamples.of(X).at([int(index) for index in indices]))[0].numpy()
    return np.asarray(X[list(indices)])


def format_value(value: Any) -> str:
    """Return a value as text: fractions with four digits, whole numbers with all digits."""
    if isinstance(value, float | np.floating):
        return f"{value:.15g}" if float(value).is_integer() else f"{value:.4g}"
    return str(value)
