"""Rows of whatever a network takes: arrays, tensors, tables, dicts, tuples, torch Datasets."""

from __future__ import annotations

import functools
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
    default_collate,
)

Inputs = Any  # A Tensor, or a dict or tuple of Inputs: what a network takes for a batch.

_DIGEST_ROWS = 1024

# Packages whose arrays are on disk, and know where.
_NAMED = ("sknetsim", "zarr")


def map_tensors(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Apply a function to each tensor of a batch."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: map_tensors(function, value) for key, value in inputs.items()}
    return tuple(map_tensors(function, value) for value in inputs)


def list_tensors(inputs: Inputs) -> list[Tensor]:
    """The tensors of a batch."""
    if isinstance(inputs, Tensor):
        return [inputs]
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [tensor for part in parts for tensor in list_tensors(part)]


def slice_batch(inputs: Inputs, rows: slice) -> Inputs:
    """Some samples of a batch."""
    return map_tensors(lambda tensor: tensor[rows], inputs)


class Rows:
    """Random access to the samples of X, as tensors of their own on the CPU.

    Parameters
    ----------
    X : array-like, Tensor, DataFrame, sparse matrix, dict, tuple or Dataset
        A dict (skorch's SliceDict included) or a tuple holds one array per argument of the
        network; the items of a Dataset are (x, y) pairs, as skorch takes them, or x alone.
    """

    def __init__(self, X: Any):
        if isinstance(X, DataLoader | IterableDataset):
            raise TypeError(
                f"X is a {type(X).__name__}, which may shuffle or drop samples; allowed are arrays,"
                " tensors, tables, dicts, tuples and Datasets with a length: pass a loader's"
                " `dataset` instead."
            )
        self._source = X if isinstance(X, Dataset) else _indexable(X)
        lengths = set(_lengths(self._source))
        if len(lengths) != 1:
            raise ValueError(
                f"X holds arrays of different lengths {sorted(lengths)}; all must have one row per"
                " sample."
            )
        self._length = lengths.pop()
        if self._length == 0:
            raise ValueError("X has 0 samples; at least one is needed.")

    def __len__(self) -> int:
        return self._length

    def take(self, rows: slice) -> Inputs:
        """The samples of a slice."""
        inputs = self.at(range(*rows.indices(len(self))), rows)
        _refuse_nonfinite(inputs, rows.start or 0)
        return inputs

    def at(self, indices: Sequence[int], rows: Any = None) -> Inputs:
        """The samples at some indices; ``rows`` addresses the same ones faster."""
        if isinstance(self._source, Dataset):
            items = [self._source[int(index)] for index in indices]
            pairs = isinstance(items[0], tuple | list) and len(items[0]) == 2
            return _nested(_collated([item[0] if pairs else item for item in items]))
        rows = indices if rows is None else rows
        return map_arrays(lambda array: _tensor(_taken(array, rows)), self._source)

    def check_finite(self) -> None:
        """Look through all rows, but those of a Dataset, which may be slow to load."""
        if not isinstance(self._source, Dataset):
            for rows in gen_batches(len(self), _DIGEST_ROWS):
                self.take(rows)

    def digests(self, dtype: torch.dtype) -> list[bytes]:
        """A digest of each sample's bytes, once its values are cast to a dtype."""
        found: list[bytes] = []
        step = 1 if isinstance(self._source, Dataset) else _DIGEST_ROWS
        for rows in gen_batches(len(self), step):
            inputs = self.at(range(rows.start, rows.stop), rows)
            found += _row_digests(list_tensors(inputs), dtype)
        return found


def _row_digests(arrays: list[Tensor], dtype: torch.dtype) -> list[bytes]:
    """Two sums each of a row's 32-bit words, times random 64-bit numbers, modulo 2^64.

    Two different rows have the same digest with a probability of at most 2^-66.
    """
    words = np.hstack([_words(array.cpu(), dtype) for array in arrays])
    return (words @ _random_numbers(words.shape[1])).view("V16")[:, 0].tolist()


def _words(array: Tensor, dtype: torch.dtype) -> np.ndarray:
    """32-bit words of each row, cast; whole numbers that this would alter as they are."""
    cast = array.to(dtype) + 0.0  # -0.0 becomes 0.0.
    if not array.is_floating_point() and not torch.equal(cast.to(array.dtype), array):
        cast = array.long()
    flat = cast.reshape(len(array), -1).numpy()
    return np.ascontiguousarray(flat).view(np.uint32).astype(np.uint64)


@functools.lru_cache(maxsize=1)
def _random_numbers(count: int) -> np.ndarray:
    """Two for each word, others for each count of words, so that a longer row is another.

    The same in all versions of numpy, for digests outlive a pickle.
    """
    return np.frombuffer(np.random.RandomState(count).bytes(16 * count), np.uint64).reshape(-1, 2)


def _refuse_nonfinite(inputs: Inputs, start: int) -> None:
    for tensor in list_tensors(inputs):
        # One pass over the numbers; a sum may also overflow.
        if not tensor.is_floating_point() or torch.isfinite(tensor.sum()):
            continue
        if not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor).flatten(1).all(dim=1)).nonzero()[0])
            raise ValueError(
                f"X contains NaN or infinity (first in row {start + bad}); all values must"
                " be finite: impute or drop such rows."
            )


def map_arrays(function: Callable[[Any], Any], source: Any) -> Any:
    """Apply a function to each array of X."""
    if isinstance(source, Mapping):
        return {key: map_arrays(function, value) for key, value in source.items()}
    if isinstance(source, tuple):
        return tuple(map_arrays(function, value) for value in source)
    return function(source)


def _collated(items: list[Any]) -> Any:
    try:
        return default_collate(items)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"X is a Dataset whose items cannot be put in a batch ({error}); allowed are items of"
            " the same shape: pad them, or set batch_size=1."
        ) from error


def reshape_samples(X: Any, shape: Sequence[int]) -> Any:
    """Arrays with their rows in a shape; what holds several arrays, or items, as it is."""
    if isinstance(X, Mapping | tuple | Dataset):
        return X
    array = np.asarray(X) if is_on_disk(X) else _indexable(X)
    if math.prod(array.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"input_shape is {tuple(shape)}, of {math.prod(shape)} values, and X has rows of shape"
            f" {tuple(array.shape[1:])}; allowed are shapes of as many values as a row has."
        )
    return array.reshape(len(array), *shape)


def make_label_tensor(y: Any) -> Tensor:
    """Labels as a tensor; strings and objects are refused."""
    if isinstance(y, Tensor):
        return y
    array = np.asarray(y)
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"y has dtype {array.dtype}; allowed are numbers, the classes' as in the network's"
            " training: encode the labels, for example with LabelEncoder."
        )
    return torch.as_tensor(array if array.flags.writeable else array.copy())


def slice_samples(X: Any, start: int, stop: int) -> Any:
    """The samples of a slice, in the form that they have, and not read yet where that can be."""
    if isinstance(X, Dataset):
        return Subset(X, range(start, stop))
    return map_arrays(lambda array: array[start:stop], _indexable(X))


class ListDataset(Dataset):
    """Some items of a Dataset, kept in memory: they may differ in shape.

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


def _taken(array: Any, rows: Any) -> Any:
    """Some rows; of an array on disk each once, in its order."""
    if isinstance(rows, slice) or not is_on_disk(array):
        return array[rows]
    chosen, places = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
    return array[chosen.tolist()][places] if len(chosen) else array[0:0]


def select_samples(X: Any, indices: Sequence[int]) -> Any:
    """The samples at some indices, as rows of their own."""
    if isinstance(X, Dataset):
        return ListDataset([X[int(index)] for index in indices])
    if isinstance(X, np.ndarray):
        return X[list(indices)]  # As a Pipeline's steps want them.
    return Rows(X).at(indices)


def concatenate_samples(first: Any, second: Any) -> Any:
    """The samples of the first, and those of the second after them."""
    if isinstance(first, Dataset) != isinstance(second, Dataset):
        raise TypeError(
            f"X is a {type(second).__name__} and what it is joined to a {type(first).__name__};"
            " allowed are two Datasets or none: hand over both in one form."
        )
    if isinstance(first, Dataset):
        before = first.datasets if isinstance(first, ConcatDataset) else [first]
        return ConcatDataset([*before, second])
    if isinstance(first, Mapping):
        return {key: concatenate_samples(value, second[key]) for key, value in first.items()}
    if isinstance(first, tuple):
        return tuple(concatenate_samples(*pair) for pair in zip(first, second, strict=True))
    if isinstance(first, Tensor):
        return torch.cat([first, torch.as_tensor(second, device=first.device)])
    return np.concatenate([_indexable(first), _indexable(second)])


def select_labelled_samples(X: Any, y: Any, indices: Sequence[int]) -> tuple[Any, Tensor | None]:
    """The samples at some indices, and their labels where there are any."""
    labels = None if y is None else make_label_tensor(y)[list(indices)]
    return select_samples(X, indices), labels


def _nested(inputs: Any) -> Inputs:
    if isinstance(inputs, list):
        return tuple(_nested(value) for value in inputs)
    return inputs


def _indexable(X: Any) -> Any:
    if isinstance(X, Mapping | tuple):
        return map_arrays(_indexable, X)
    if isinstance(X, Tensor | np.ndarray):
        return X
    if hasattr(X, "toarray"):
        return X.toarray()
    if hasattr(X, "to_numpy"):
        return X.to_numpy()
    return X if is_on_disk(X) else np.asarray(X)


def is_on_disk(X: Any) -> bool:
    """Whether X is an array on disk: a FeatureStore, zarr's or h5py's."""
    return _package(X) in (*_NAMED, "h5py") and hasattr(X, "shape")


def is_pickled_by_path(X: Any) -> bool:
    """Whether a pickle of it holds where it is, and not its content."""
    return is_on_disk(X) and _package(X) in _NAMED


def _package(X: Any) -> str:
    return type(X).__module__.split(".")[0]


def _lengths(source: Any) -> list[int]:
    found: list[int] = []
    if isinstance(source, Dataset):
        return [len(source)]  # type: ignore[arg-type]
    map_arrays(lambda array: found.append(array.shape[0] if array.ndim else 0), source)
    return found


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        _refuse_dtype(array.is_complex(), array.dtype)
        return array.detach().clone()
    array = np.asarray(array)
    _refuse_dtype(array.dtype.kind not in "fiub", array.dtype)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _refuse_dtype(refused: bool, dtype: Any) -> None:
    if refused:
        raise ValueError(
            f"X has dtype {dtype}; allowed are floating point, integer and boolean arrays."
        )
