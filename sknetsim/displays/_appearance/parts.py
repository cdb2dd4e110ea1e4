"""Parts of samples in any form: columns of a table, texts, images and other values.

Index legend: n samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.utils.data import Dataset

from ..._networks.samples import RawSamples, Samples
from ..._networks.samples.arrays import is_table
from .formatting import format_name, is_missing

# Largest number of columns of a sparse matrix that are columns of a table. Of more columns, only
# the non-zero entries are listed.
_DENSE_COLUMNS = 24

# Number of samples in which images are looked for, because images of some samples may be missing.
_PROBED_SAMPLES = 4


class Part(NamedTuple):
    """One value of each sample: a column of a table, an argument of a network, texts or images.

    Parameters
    ----------
    name : str or None
        Name of the part; None for a column without a name.
    values : list or ndarray of length n
        Numbers, texts, arrays, images of Pillow or other objects, in the form in which X has them.
    """

    name: str | None
    values: list[Any] | np.ndarray


def open_samples(X: Any) -> RawSamples:
    """Return the samples of X in its own form; a tuple of texts is a sequence of samples."""
    X = X.data if isinstance(X, Samples) else X
    is_texts = isinstance(X, tuple) and all(isinstance(text, str | None) for text in X)
    return RawSamples(list(X) if is_texts else X)


def list_parts(X: Any, indices: Sequence[int]) -> list[Part]:
    """Return the parts of the samples at some indices.

    Parameters
    ----------
    X : object
        All samples, in any form: array, tensor, table, sparse matrix, list, dict, tuple or Dataset.
    indices : sequence of int of length n
        Positions of the samples in X.

    Returns
    -------
    parts : list of Part
        The columns of a table, of a matrix, or of items that are dicts; else a single part.
    """
    return _split(open_samples(X).select([int(index) for index in indices]).data, None)


def _split(X: Any, name: Any) -> list[Part]:
    """Return the parts of all samples of X, which is itself a part of some name."""
    if is_table(X):
        columns = range(len(X.columns))
        return [
            Part(format_name(column), _list_column(X, place))
            for place, column in zip(columns, X.columns, strict=True)
        ]
    if isinstance(X, Mapping | tuple):
        parts = dict(X) if isinstance(X, Mapping) else dict(enumerate(X))
        if len(parts) == 1:
            return _split(*parts.values(), *parts)
        return [
            Part(format_name(key), _squeeze_items(list_items(part))) for key, part in parts.items()
        ]
    if sparse.issparse(X) and X.shape[1] > _DENSE_COLUMNS:
        name = "non-zero entries" if name is None else name
    elif name is None and _is_column(X):
        name = X.name or None  # "" in polars
    return _split_items(list_items(X), None if name is None else format_name(name))


def _is_column(X: Any) -> bool:
    """Return whether X is a Series of pandas or polars; a Hugging Face Dataset has no to_numpy."""
    return hasattr(X, "to_list") and hasattr(X, "to_numpy")


def _list_column(table: Any, place: int) -> list[Any]:
    """Return the values of a column by its position, because names may occur twice."""
    column = table.iloc[:, place] if hasattr(table, "iloc") else table[:, place]
    return list_items(column)


def list_items(X: Any) -> list[Any]:
    """Return the samples of X one by one, with tensors as arrays."""
    if sparse.issparse(X):
        return _list_sparse_rows(X.tocsr())
    if isinstance(X, np.ma.MaskedArray):
        X = np.where(np.ma.getmaskarray(X), np.array(None), X.data)
    if _is_column(X):
        return [_convert_item(item) for item in X.to_list()]
    items = [X[index] for index in range(len(X))] if not is_table(X) else X.to_numpy()
    if isinstance(X, Dataset) and isinstance(items[0], tuple | list) and len(items[0]) == 2:
        items = [item[0] for item in items]  # Pairs (x, y), as in skorch.
    return [_convert_item(item) for item in items]


def _list_sparse_rows(X: Any) -> list[Any]:
    """Return the rows of a narrow matrix, and texts with the non-zero entries of a wide one."""
    if X.shape[1] <= _DENSE_COLUMNS:
        return list(X.toarray())
    X.sum_duplicates()
    rows = np.split(np.arange(len(X.data)), X.indptr[1:-1])
    return [
        ", ".join(f"{X.indices[place]}: {X.data[place]:.4g}" for place in row) or "all zero"
        for row in rows
    ]


def _convert_item(item: Any) -> Any:
    """Return a tensor or a list of numbers as an array, and other items unchanged."""
    if isinstance(item, Tensor):
        item = item.detach().cpu()
        # numpy has no bfloat16.
        return (item.float() if item.dtype is torch.bfloat16 else item).numpy()
    if isinstance(item, list | tuple) and not any(isinstance(value, Tensor) for value in item):
        try:
            array = np.asarray(item)
        except ValueError:  # The parts of the item differ in shape.
            return item
        if array.dtype.kind == "U":  # NaN among texts has become a text.
            array = np.asarray(item, dtype=object)
        # A tuple of arrays has the parts of a sample. A list of lists is one array.
        return item if isinstance(item, tuple) and array.ndim > 1 else array
    return item


def _squeeze_items(items: list[Any]) -> list[Any]:
    """Return items with values in place of arrays with one value, if all arrays have one value."""
    if all(isinstance(item, np.ndarray) and item.shape == (1,) for item in items):
        return [item[0] for item in items]
    return items


def _split_items(items: list[Any], name: str | None) -> list[Part]:
    """Return the parts of items: those of dicts and tuples, the columns of rows, else one part."""
    keys = _list_keys([item for item in items if not is_missing(item)])
    parts = [[_get_part(item, key) for item in items] for key in keys]
    if len(parts) == 1:
        return _split_items(parts[0], name if keys == [0] else format_name(keys[0]))
    if parts:
        named = zip(keys, parts, strict=True)
        return [Part(format_name(key), _squeeze_items(part)) for key, part in named]
    shapes = {item.shape if isinstance(item, np.ndarray) else None for item in items}
    shape = shapes.pop() if len(shapes) == 1 else None
    if shape is not None and len(shape) == 1 and shape[0] > 0:
        rows = np.stack(items)
        own = name if shape[0] == 1 else None
        return [Part(own, rows[:, column]) for column in range(shape[0])]
    if name is None and any(isinstance(item, str | bytes) for item in items):
        name = "text"
    return [Part(name, items)]


def _list_keys(items: Sequence[Any]) -> list[Any]:
    """Return the keys of items that are dicts, the positions in tuples, else an empty list."""
    if items and all(isinstance(item, Mapping) for item in items):
        return list(dict.fromkeys(key for item in items for key in item))
    if items and all(isinstance(item, tuple) for item in items):
        return [*range(max(map(len, items)))]
    return []


def _get_part(item: Any, key: Any) -> Any:
    """Return the part of a dict or tuple under a key, or None if there is none."""
    if is_missing(item):
        return None
    has_part = key in item if isinstance(item, Mapping) else key < len(item)
    return _convert_item(item[key]) if has_part else None


def join_columns(parts: list[Part]) -> list[Part]:
    """Return columns without names as one part with an array for each sample."""
    if len(parts) < 2 or any(part.name is not None for part in parts):
        return parts
    return [Part(None, list(np.stack([np.asarray(part.values) for part in parts], axis=1)))]


def is_image(value: Any) -> bool:
    """Return whether a value is an image of Pillow, or an array with the axes of an image."""
    if isinstance(value, np.ndarray):
        return value.ndim in (2, 3) and value.dtype.kind in "fiub"
    return hasattr(value, "getbands") and hasattr(value, "convert")


def contains_images(X: Any) -> bool:
    """Return whether one of the first samples of X contains an image."""
    count = min(_PROBED_SAMPLES, len(open_samples(X)))
    return find_image_part(list_parts(X, range(count))) is not None


def find_image_part(parts: Sequence[Part]) -> int | None:
    """Return the position of the first part with images, or None if there is none."""
    for place, part in enumerate(parts):
        if not isinstance(part.values, np.ndarray):
            given = (value for value in part.values if not is_missing(value))
            if is_image(next(given, None)):
                return place
    return None
