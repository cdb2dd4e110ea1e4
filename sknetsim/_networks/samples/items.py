"""Items of X that are read one by one, from a Dataset or a sequence, and the batches of them."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from ..batches import Inputs, check_batch, collate, convert_batch, join_batches
from ..object_state import get_package
from .arrays import check_has_rows, copy_arrays, make_indexable, make_tensor, map_arrays

# Attributes of arrays and tables, which are not read item by item.
_OF_ARRAYS = ("__array__", "dtype", "columns", "toarray", "to_numpy")


@dataclass(frozen=True)
class Batching:
    """Way in which a skorch net reads X and forms batches, if it is not the default one.

    Attributes
    ----------
    read : callable or None
        Function that returns the Dataset of X; None if the net has the default one.
    iterate : callable or None
        Function that returns the iterator over the batches of a Dataset, given ``batch_size``; None
        if the net has the default one.
    """

    read: Callable[[Any], Any] | None
    iterate: Callable[..., Any] | None

    def collate(self, pairs: list[tuple[Any, Any]]) -> Inputs:
        """Return the batch of some items (x, y), without y."""
        if self.iterate is None:
            return collate([x for x, _ in pairs])
        iterator = self.iterate(ListDataset(pairs), batch_size=len(pairs))
        # A loader may sort the samples by length, which its function that forms a batch does not.
        is_loader = getattr(type(iterator), "__iter__", None) is DataLoader.__iter__
        forms_batch = is_loader and iterator.collate_fn is not None
        batches = [iterator.collate_fn(pairs)] if forms_batch else list(iterator)
        return join_batches([convert_batch(_take_inputs(batch)) for batch in batches])


def _take_inputs(batch: Any) -> Any:
    """Return the inputs of a batch (X, y) of a skorch net."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0]
    raise ValueError(
        "`estimator` must form batches (X, y), like those of skorch; got a"
        f" {type(batch).__name__}{_describe_length(batch)}. Change its `collate_fn` or iterator."
    )


def _describe_length(batch: Any) -> str:
    return f" of length {len(batch)}" if isinstance(batch, tuple | list) else ""


class Items(Dataset):
    """Items (x, y) of X, and the batches of x.

    Parameters
    ----------
    source : object
        Dataset, sequence, or arrays that contain the items.
    get_pair : callable
        Function that returns the item (x, y) of the source at an index.
    batching : Batching or None
        How batches are formed; None for the default of torch.
    """

    def __init__(self, source: Any, get_pair: Callable[..., Any], batching: Batching | None):
        self.source = source
        self.get_pair = get_pair
        self.batching = batching

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        # A copy, because a Dataset may return the same tensor each time.
        x, y = self.get_pair(self.source, int(index))
        return copy_arrays(x), y

    def read(self, indices: Sequence[int]) -> Inputs:
        """Return the batch of the items at some indices."""
        pairs = [self[index] for index in indices]
        if self.batching is None:
            return collate([map_arrays(_to_tensor, x) for x, _ in pairs])
        return check_batch(self.batching.collate(pairs), len(pairs))

    def select(self, indices: Sequence[int]) -> Items:
        """Return the items at some indices, kept in memory."""
        return self._replace(ListDataset([self[index] for index in indices]))

    def part(self, rows: slice) -> Items:
        """Return the items of a slice, which are not read."""
        return self._replace(Subset(self, range(*rows.indices(len(self)))))

    def append(self, others: Items) -> Items:
        """Return these items, followed by others."""
        joined = isinstance(self.source, ConcatDataset)
        before = self.source.datasets if joined else [self]  # Without nesting.
        return self._replace(ConcatDataset([*before, others]))

    def _replace(self, pairs: Any) -> Items:
        return Items(pairs, _get_pair, self.batching)


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


class SequenceOfInputs(Sequence):
    """Items x, without y, as skorch takes them together with labels.

    Parameters
    ----------
    items : Items
        The items.
    """

    def __init__(self, items: Items):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index][0]


class RowsDataset(Dataset):
    """Rows of arrays as the items of a Dataset.

    Parameters
    ----------
    arrays : object
        Array, or dict or tuple of arrays.
    length : int
        Number of rows.
    """

    def __init__(self, arrays: Any, length: int):
        self.arrays = arrays
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return map_arrays(lambda array: array[index], self.arrays)


def is_hugging_face_dataset(X: Any) -> bool:
    """Return whether X is a Dataset of the package "datasets"."""
    return get_package(type(X).__module__) == "datasets" and hasattr(X, "with_format")


def is_read_by_items(X: Any) -> bool:
    """Return whether X is a Dataset, or a sequence that is neither an array nor a list."""
    if isinstance(X, Dataset) or is_hugging_face_dataset(X):
        return True
    if isinstance(X, list | tuple | str | bytes | Mapping):
        return False
    if isinstance(X, Sequence):
        return True
    is_array = any(hasattr(X, name) for name in _OF_ARRAYS)
    return not is_array and hasattr(X, "__getitem__") and hasattr(X, "__len__")


def find_items(X: Any, batching: Batching | None = None) -> Items | None:
    """Return the items of X, or None if X consists of arrays that form batches by themselves.

    Parameters
    ----------
    X : object
        The samples.
    batching : Batching or None
        How the network reads X and forms batches; None if it does so like torch.
    """
    check_has_rows(X)
    if isinstance(X, Items):
        return X
    # A function of the user that forms batches gets the items unchanged.
    get_x = _get_array if batching is None else _get_x
    if batching is not None and batching.read is not None:
        return Items(batching.read(X), _get_pair, batching)
    if isinstance(X, Dataset):
        return Items(X, _get_array_pair if batching is None else _get_pair, batching)
    if is_hugging_face_dataset(X):
        # Without a format, its items contain lists of numbers.
        X = X if X.format["type"] is not None else X.with_format("torch")
        return Items(X, get_x, batching)
    if is_read_by_items(X):
        return Items(X, get_x, batching)
    is_list = isinstance(X, list) or (isinstance(X, np.ndarray) and X.dtype == object)
    if is_list and (batching is not None or any(isinstance(item, Mapping) for item in X)):
        return Items(ListDataset(list(X)), get_x, batching)
    if batching is None:
        return None
    return make_items(make_indexable(X), batching)


def make_items(arrays: Any, batching: Batching | None) -> Items:
    """Return the rows of arrays as items."""
    lengths: list[int] = []
    map_arrays(lambda array: lengths.append(len(array)), arrays)
    return Items(RowsDataset(arrays, lengths[0]), _get_x, batching)


def _to_tensor(part: Any) -> Any:
    """Return an array of numbers as a tensor, so that items may be arrays and tensors."""
    return make_tensor(part) if isinstance(part, np.ndarray) and part.dtype.kind in "fiub" else part


def _get_pair(source: Any, index: int) -> tuple[Any, Any]:
    """Return an item of a Dataset as (x, y); an item that is no pair is x."""
    item = source[index]
    return tuple(item) if _is_pair(item) else (item, torch.zeros(1))


def _get_array_pair(source: Any, index: int) -> tuple[Any, Any]:
    """Return an item of a Dataset as (x, y), with arrays for lists of numbers in x."""
    x, y = _get_pair(source, index)
    return _convert_lists(x), y


def _is_pair(item: Any) -> bool:
    """Return whether an item is (x, y); a list of two numbers is x, such as two words."""
    is_list = isinstance(item, list) and not all(isinstance(x, numbers.Number) for x in item)
    return (isinstance(item, tuple) or is_list) and len(item) == 2


def has_pairs(X: Any) -> bool:
    """Return whether X is a Dataset of the user with items (x, y)."""
    return isinstance(X, Dataset) and not isinstance(X, Items) and _is_pair(X[0])


def _get_x(source: Any, index: int) -> tuple[Any, Any]:
    """Return an item of a sequence as (x, y), where y is a placeholder, as in skorch."""
    return source[index], torch.zeros(1)


def _get_array(source: Any, index: int) -> tuple[Any, Any]:
    """Return an item of a sequence as (x, y), with arrays for lists of numbers in x."""
    return _convert_lists(source[index]), torch.zeros(1)


def _convert_lists(item: Any) -> Any:
    """Return an item with arrays for lists of numbers, which torch would transpose."""
    if isinstance(item, Mapping):
        return {key: _convert_lists(value) for key, value in item.items()}
    if not isinstance(item, list) or any(isinstance(part, Tensor | str) for part in item):
        return item
    try:
        array = np.asarray(item)
    except ValueError:
        return item
    return array if array.dtype.kind in "fiub" else item
