"""Samples in each form that a network takes: array, tensor, table, dict, tuple or Dataset."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_batches
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
)

from .batches import (
    Inputs,
    collate,
    convert_rows,
    list_tensors,
    make_dtype_error,
)
from .label_arrays import check_numbers

# Number of samples that are checked for NaN at a time.
_CHECKED_SAMPLES = 1024

# Packages whose arrays on disk are pickled as their path.
_PICKLED_BY_PATH = ("sknetsim", "zarr")


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
        self._source = X if isinstance(X, Dataset) else _make_indexable(X)
        self._length = check_lengths(_lengths(self._source))
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
        return map_arrays(lambda array: _make_tensor(take_rows(array, rows)), self._source)

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


def map_arrays(function: Callable[[Any], Any], source: Any) -> Any:
    """Apply a function to each array of X."""
    if isinstance(source, Mapping):
        return {key: map_arrays(function, value) for key, value in source.items()}
    if isinstance(source, tuple):
        return tuple(map_arrays(function, value) for value in source)
    return function(source)


def copy_arrays(X: Any) -> Any:
    """Return X in copied memory; a Dataset and arrays on disk are returned unchanged."""
    if isinstance(X, Dataset):
        return X
    # deepcopy takes the copies of these arrays from the memo: it refuses tensors with a graph.
    memo: dict[int, Any] = {}

    def add(array: Any) -> None:
        if isinstance(array, Tensor):
            memo[id(array)] = array.detach().clone()
        elif is_on_disk(array):
            memo[id(array)] = array

    map_arrays(add, X)
    return copy.deepcopy(X, memo)


def concatenate_arrays(first: Any, second: Any) -> Any:
    """Return the samples of the first X, followed by the samples of the second, in one form."""
    if isinstance(first, Dataset) != isinstance(second, Dataset):
        raise TypeError(
            f"`X` must have the form of the samples before it, a Dataset or not; got a"
            f" {type(second).__name__} after a {type(first).__name__}. Pass both in one form."
        )
    if isinstance(first, Dataset):
        before = first.datasets if isinstance(first, ConcatDataset) else [first]
        return ConcatDataset([*before, second])
    if isinstance(first, Mapping):
        return {key: concatenate_arrays(value, second[key]) for key, value in first.items()}
    if isinstance(first, tuple):
        return tuple(concatenate_arrays(*pair) for pair in zip(first, second, strict=True))
    if isinstance(first, Tensor):
        return torch.cat([first, torch.as_tensor(second, device=first.device)])
    return np.concatenate([_make_indexable(first), _make_indexable(second)])


def make_label_tensor(y: Any) -> Tensor:
    """Return labels as a tensor, and check that they are finite numbers."""
    labels = check_numbers(y)
    return y if isinstance(y, Tensor) else _make_tensor(labels)


def select_labels(y: Any, indices: Sequence[int]) -> Tensor | None:
    """Return the labels at some indices, or None without labels."""
    return None if y is None else make_label_tensor(y)[list(indices)]


def is_on_disk(X: Any) -> bool:
    """Return whether X is an array on disk, of a FeatureStore, zarr or h5py."""
    return _package(X) in (*_PICKLED_BY_PATH, "h5py") and hasattr(X, "shape")


def is_pickled_by_path(X: Any) -> bool:
    """Return whether a pickle of X contains the path of X instead of its values."""
    return is_on_disk(X) and _package(X) in _PICKLED_BY_PATH


def _package(X: Any) -> str:
    """Return the name of the package of an object's class."""
    return type(X).__module__.split(".")[0]


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


def take_rows(array: Any, rows: Any) -> Any:
    """Return some rows; rows on disk are read once each, in the order on disk."""
    if isinstance(rows, slice) or not is_on_disk(array):
        return array[rows]
    chosen, places = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
    return array[chosen.tolist()][places] if len(chosen) else array[0:0]


def _make_indexable(X: Any) -> Any:
    """Return X as arrays that slices and lists of indices select samples from."""
    if isinstance(X, Mapping | tuple):
        return map_arrays(_make_indexable, X)
    X = convert_rows(X)
    if isinstance(X, Tensor | np.ndarray):
        return X
    if hasattr(X, "toarray"):
        return X.toarray()
    if hasattr(X, "to_numpy"):
        return X.to_numpy()
    return X if is_on_disk(X) else np.asarray(X)


def _lengths(source: Any) -> list[int]:
    """Return the number of samples in each array of X; 0 for a scalar."""
    lengths: list[int] = []
    if isinstance(source, Dataset):
        return [len(source)]  # type: ignore[arg-type]
    map_arrays(lambda array: lengths.append(array.shape[0] if array.ndim else 0), source)
    return lengths


def _make_tensor(array: Any) -> Tensor:
    """Return a copy of an array as a tensor, without autograd graph and in native byte order."""
    if isinstance(array, Tensor):
        return array.detach().clone()
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise make_dtype_error(array.dtype)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
