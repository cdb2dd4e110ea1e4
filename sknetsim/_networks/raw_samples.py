"""Samples in the form that the steps before a network take: tables, texts, or any other rows."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from torch.utils.data import Dataset, Subset

from .samples import (
    ListDataset,
    Samples,
    check_lengths,
    concatenate_arrays,
    is_on_disk,
    map_arrays,
    take_rows,
)


class RawSamples(Samples):
    """Samples of X in its own form, which is not converted to arrays before it is needed.

    Parameters
    ----------
    X : object
        A table, a list or column of texts, an array, a sparse matrix, a Dataset, or a dict or tuple
        of these.
    rows : sequence of int or None
        Row of the user's X for each sample, for errors. None: X is the user's X.
    """

    def __init__(self, X: Any, rows: Sequence[int] | None = None):
        self.data = X
        self._length = check_lengths(list_lengths(X))
        self.rows = range(self._length) if rows is None else rows

    @functools.cached_property
    def _source(self) -> Any:  # type: ignore[override]
        return Samples(self.data)._source

    def select(self, indices: Sequence[int]) -> RawSamples:
        """Return the samples at some indices, in the form of X."""
        rows = [self.rows[int(index)] for index in indices]
        chosen = [int(index) for index in indices]
        return RawSamples(map_arrays(lambda part: _select_rows(part, chosen), self.data), rows)

    def part(self, rows: slice) -> RawSamples:
        """Return the samples of a slice, in the form of X."""
        return RawSamples(
            map_arrays(lambda part: _select_rows(part, rows), self.data), self.rows[rows]
        )

    def append(self, others: Samples) -> RawSamples:
        """Return these samples, followed by others of the same form."""
        return RawSamples(_concatenate(self.data, others.data))

    def find_non_finite(self) -> None:
        """Return None: the steps before the network may take NaN."""


def list_lengths(X: Any) -> list[int]:
    """Return the number of rows of each part of X."""
    lengths: list[int] = []
    map_arrays(lambda part: lengths.append(_count_rows(part)), X)
    return lengths


def _count_rows(part: Any) -> int:
    shape = getattr(part, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 0
    return len(part) if hasattr(part, "__len__") and not isinstance(part, str | bytes) else 0


def _select_rows(part: Any, rows: Any) -> Any:
    """Return some rows of a part of X, at indices or in a slice, in its own form."""
    if hasattr(part, "iloc"):
        return part.iloc[rows]
    if is_on_disk(part):
        return take_rows(part, rows)
    if sparse.issparse(part):
        return part.tocsr()[rows]
    if isinstance(part, Dataset) and isinstance(rows, slice):
        return Subset(part, range(*rows.indices(len(part))))  # type: ignore[arg-type]
    if hasattr(part, "__array__") or hasattr(part, "columns") or isinstance(rows, slice):
        return part[rows]
    items = [part[row] for row in rows]
    return ListDataset(items) if isinstance(part, Dataset) else items


def _concatenate(first: Any, second: Any) -> Any:
    """Return the rows of the first X, followed by those of the second, in the form of the first."""
    if isinstance(first, Mapping):
        return {key: _concatenate(value, second[key]) for key, value in first.items()}
    if hasattr(first, "iloc") and type(first) is type(second):
        import pandas

        return pandas.concat([first, second], ignore_index=True)
    if isinstance(first, list):
        return [*first, *second]
    if sparse.issparse(first):
        return sparse.vstack([first, second], format="csr")
    if isinstance(first, np.ndarray):
        return np.concatenate([first, np.asarray(second)])
    return concatenate_arrays(first, second)
