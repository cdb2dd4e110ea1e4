"""Samples in each form that a network takes: array, tensor, table, dict, tuple or Dataset."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import gen_batches
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from .batches import (
    Inputs,
    collate,
    concatenate_arrays,
    convert_rows,
    copy_arrays,
    is_on_disk,
    list_tensors,
    make_indexable,
    make_tensor,
    map_arrays,
    take_rows,
)

# Number of samples that are checked for NaN at a time.
_CHECKED_SAMPLES = 1024


class Samples:
    """Random access to the samples of X, as new tensors on the CPU.

    Parameters
    ----------
    X : array-like, Tensor, DataFrame, sparse matrix, dict, tuple or Dataset
        A dict (skorch's SliceDict included) or a tuple holds one array per argument of the
        network. The items of a Dataset are (x, y) pairs, as in skorch, or only x.
    rows : sequence of int or None
        Row of the user's X for each sample, for errors. None: X is the user's X.

    Attributes
    ----------
    data : object
        X itself, which skorch and the steps of a Pipeline take.
    """

    def __init__(self, X: Any, rows: Sequence[int] | None = None):
        if isinstance(X, DataLoader | IterableDataset):
            raise TypeError(
                "`X` must be an array, tensor, table, dict, tuple or Dataset with a length; got a"
                f" {type(X).__name__}, which may shuffle or drop samples. Pass the `dataset` of a"
                " loader instead."
            )
        X = self.data = convert_rows(X)
        self._source = X if isinstance(X, Dataset) else make_indexable(X)
        self._length = check_lengths(list_lengths(self._source))
        self.rows: Sequence[int] = range(self._length) if rows is None else rows

    @classmethod
    def of(cls, X: Any) -> Samples:
        """Return X if it is a `Samples` object already, else the samples of X."""
        return X if isinstance(X, Samples) else cls(X)

    def __len__(self) -> int:
        return self._length

    def is_same(self, other: Samples) -> bool:
        """Return whether both hold the same object X; equal values of two objects do not count."""
        return self is other or self.data is other.data

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data, self.rows)

    def take(self, rows: slice) -> Inputs:
        """Return the samples of a slice as a batch."""
        return self.at(range(*rows.indices(len(self))), rows)

    def take_finite(self, rows: slice) -> Inputs:
        """Return the samples of a slice as a batch, and check that they are finite."""
        inputs = self.take(rows)
        index = _find_non_finite_row(inputs)
        if index is not None:
            raise ValueError(
                f"`X` must be finite; got NaN or infinity, first in row {self.rows[rows][index]}."
                " Impute or drop these rows."
            )
        return inputs

    def at(self, indices: Sequence[int], rows: Any = None) -> Inputs:
        """Return the samples at some indices; a slice ``rows`` of the same samples is faster."""
        if isinstance(self._source, Dataset):
            # Copies, because a Dataset may return the same tensor each time.
            items = [copy_arrays(self._source[int(index)]) for index in indices]
            pairs = isinstance(items[0], tuple | list) and len(items[0]) == 2
            return collate([item[0] if pairs else item for item in items])
        rows = indices if rows is None else rows
        return map_arrays(lambda array: make_tensor(take_rows(array, rows)), self._source)

    def select(self, indices: Sequence[int]) -> Samples:
        """Return copies of the samples at some indices."""
        rows = [self.rows[int(index)] for index in indices]
        if isinstance(self.data, Dataset):
            return Samples(ListDataset([self.data[int(index)] for index in indices]), rows)
        if isinstance(self.data, np.ndarray):
            return Samples(self.data[list(indices)], rows)  # The steps of a Pipeline take arrays.
        return Samples(self.at(indices), rows)

    def part(self, rows: slice) -> Samples:
        """Return the samples of a slice in the form of X, if possible without reading them."""
        if isinstance(self.data, Dataset):
            part: Any = Subset(self.data, range(rows.start, rows.stop))
        else:
            part = map_arrays(lambda array: array[rows], self._source)
        return Samples(part, self.rows[rows])

    def append(self, others: Samples) -> Samples:
        """Return these samples, followed by others."""
        return Samples(concatenate_arrays(self.data, others.data))

    def reshape(self, shape: Sequence[int]) -> Samples:
        """Reshape each row; a dict, tuple or Dataset is returned unchanged."""
        if isinstance(self.data, Mapping | tuple | Dataset):
            return self
        array: Any = np.asarray(self.data) if is_on_disk(self.data) else self._source
        if math.prod(array.shape[1:]) != math.prod(shape):
            raise ValueError(
                f"`input_shape` must have as many values as a row of X, whose rows have the shape"
                f" {tuple(array.shape[1:])}; got {tuple(shape)}, of {math.prod(shape)} values. Set"
                " it to the shape of one sample of the network."
            )
        return Samples(array.reshape(len(array), *shape), self.rows)

    def check_finite(self) -> None:
        """Check that X is finite; a Dataset is not checked, because its items may load slowly."""
        for rows in self._list_checked():
            self.take_finite(rows)

    def _list_checked(self) -> list[slice]:
        """Return the slices that are checked for NaN."""
        is_slow = isinstance(self._source, Dataset)
        return [] if is_slow else list(gen_batches(len(self), _CHECKED_SAMPLES))

    def find_non_finite(self) -> int | None:
        """Return the index of the first sample with NaN or infinity, or None if there is none.

        A Dataset is not searched, because its items may load slowly.
        """
        for rows in self._list_checked():
            index = _find_non_finite_row(self.take(rows))
            if index is not None:
                return int(rows.start + index)
        return None


def check_lengths(lengths: Sequence[int]) -> int:
    """Return the number of samples if all parts of X have the same, and if it is not 0."""
    if len(set(lengths)) != 1:
        raise ValueError(
            f"`X` must contain arrays of one length, one row per sample; got lengths"
            f" {sorted(set(lengths))}. Pass arrays with a row for each sample."
        )
    if lengths[0] == 0:
        raise ValueError("`X` must contain at least 1 sample; got 0 samples. Pass some samples.")
    return lengths[0]


class ListDataset(Dataset):
    """Items of a Dataset, kept in memory; they may differ in shape.

    Parameters
    ----------
    items : list
        The items.
    """

    def __init__(self, items: list[Any]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def _find_non_finite_row(inputs: Inputs) -> int | None:
    """Return the first row of a batch with NaN or infinity, or None if there is none."""
    first: list[int] = []
    for tensor in list_tensors(inputs):
        # A finite sum shows in one pass that all numbers are finite. The sum of finite numbers may
        # overflow, so each number is checked if the sum is not finite.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum()):
            is_finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(dim=1)
            first += (~is_finite).nonzero()[:1, 0].tolist()
    return min(first, default=None)


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
        return RawSamples(concatenate_arrays(self.data, others.data))

    def find_non_finite(self) -> None:
        """Return None: the steps before the network may take NaN."""


def list_lengths(X: Any) -> list[int]:
    """Return the number of rows of each part of X."""
    lengths: list[int] = []
    map_arrays(lambda part: lengths.append(_count_rows(part)), X)
    return lengths


def _count_rows(part: Any) -> int:
    """Return the number of rows of a part of X; 0 for a scalar."""
    if isinstance(part, Dataset):
        return len(part)  # type: ignore[arg-type]
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
