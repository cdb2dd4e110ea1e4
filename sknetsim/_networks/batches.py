"""Batches of samples as a network takes them: a tensor, or a dict or tuple of tensors.

X consists of arrays with a row per sample. Errors say why some X does not.
"""

from __future__ import annotations

import contextlib
import copy
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, default_collate

from ..exceptions import is_out_of_memory

# Parts of the messages by which numpy and scikit-learn refuse values that are not numbers.
_NOT_NUMBERS = ("could not convert", "array element with a sequence", "arrays of bytes/strings")

# Packages whose arrays on disk are pickled as their path.
_PICKLED_BY_PATH = ("sknetsim", "zarr")

# Types of values without rows.
_WITHOUT_ROWS = (str, bytes, set, numbers.Number, Iterator)

Inputs = Any  # A Tensor, or a dict or tuple of Inputs.


def map_tensors(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Apply a function to each tensor of a batch."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: map_tensors(function, value) for key, value in inputs.items()}
    return tuple(map_tensors(function, value) for value in inputs)


def list_tensors(inputs: Inputs) -> list[Tensor]:
    """Return the tensors of a batch."""
    if isinstance(inputs, Tensor):
        return [inputs]
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [tensor for part in parts for tensor in list_tensors(part)]


def find_tensors(value: Any) -> list[Tensor]:
    """Return the tensors in a value, which may consist of containers and other values."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value
    is_nested = isinstance(value, Mapping | list | tuple)
    return [tensor for part in parts for tensor in find_tensors(part)] if is_nested else []


def slice_batch(inputs: Inputs, rows: slice) -> Inputs:
    """Return the samples of a batch in a slice."""
    return map_tensors(lambda tensor: tensor[rows], inputs)


def take_batch(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """Return copies of some samples of a batch."""
    return map_tensors(lambda tensor: tensor[list(rows)], inputs)


def describe_non_finite(inputs: Inputs) -> str:
    """Return "is finite", or that a batch contains NaN or infinity, as a part of a sentence."""
    floating = [tensor for tensor in list_tensors(inputs) if tensor.is_floating_point()]
    tests = {"NaN": torch.isnan, "infinity": torch.isinf}
    kinds = [name for name, test in tests.items() if any(test(t).any() for t in floating)]
    if not kinds:
        return "is finite"
    dtype = str(floating[0].dtype).removeprefix("torch.")
    # Large float64 numbers become infinite in the dtype of a float32 network.
    return "contains " + " and ".join(kinds) + (f" in {dtype}" if "infinity" in kinds else "")


def make_dtype_error(dtype: Any, reason: str = "") -> ValueError:
    """Return the error for an array whose dtype is not that of real numbers."""
    return ValueError(
        f"`X` must contain floating-point, integer or boolean numbers; got {dtype}{reason}. Convert"
        " X to one of these."
    )


@contextlib.contextmanager
def explain_dtype(X: Any) -> Iterator[None]:
    """Name X in errors, inside the block, for values that are not numbers."""
    if isinstance(X, np.ndarray) and X.dtype.kind in "SU":
        raise make_dtype_error(repr(X.dtype))
    try:
        yield
    except ValueError as error:
        if any(text in str(error) for text in _NOT_NUMBERS):
            dtype = getattr(X, "dtype", type(X).__name__)
            raise make_dtype_error(dtype, f" ({error})") from error
        raise


def convert_rows(X: Any) -> Any:
    """Return X, with lists as arrays or tensors; raise an error if X has no rows of one shape."""
    if isinstance(X, list) or (
        isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1 and len(X)
    ):
        return _stack(list(X))
    if X is None:
        raise ValueError("`X` must be given; got None. Pass the samples.")
    if isinstance(X, Tensor):
        check_tensor(X)
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            "`X` must have no masked values; got an array with a mask, which networks do not take."
            " Pass X.filled(value), with a value that the network takes for a missing one."
        )
    if isinstance(X, _WITHOUT_ROWS) or getattr(X, "shape", None) == ():
        raise ValueError(
            f"`X` must have the samples on its first axis; got a {type(X).__name__} without axes."
            " Pass an array with a row for each sample."
        )
    return X


def _stack(rows: list[Any]) -> Any:
    """Return a list of rows as one array, or a list of tensors as one tensor."""
    if any(isinstance(row, Mapping) for row in rows):
        raise ValueError(
            "`X` must be one dict of arrays, or a Dataset whose items are dicts; got a list of"
            " dicts. Pass a Dataset that returns them."
        )
    try:
        if rows and all(isinstance(row, Tensor) for row in rows):
            return torch.stack([row.detach() for row in rows])
        return np.asarray(rows)
    except (RuntimeError, ValueError) as error:
        raise _make_shape_error(f"a list whose rows differ in length or shape ({error})") from error


def _make_shape_error(description: str) -> ValueError:
    """Return the error for rows that differ in shape."""
    return ValueError(
        f"`X` must contain rows of one shape; got {description}. Pad them, or pass a Dataset of the"
        " rows and set batch_size=1."
    )


def check_shape(shape: tuple[int, ...], sample_shape: tuple[int, ...]) -> None:
    """Raise an error unless an X of a shape contains samples with the shape that was fitted."""
    if shape[1:] == sample_shape:
        return
    cure = "Pass samples of that shape, or call fit again."
    if shape == sample_shape:
        cure = f"Pass a single sample as X[None], of shape {(1, *shape)}."
    elif math.prod(shape) == math.prod(sample_shape):
        cure = f"Pass a single sample as X.reshape{(1, *sample_shape)}."
    raise ValueError(
        f"`X` must have samples of shape {sample_shape}, as in fit, on its first axis; got samples"
        f" of shape {shape[1:]}. {cure}"
    )


def collate(items: list[Any]) -> Inputs:
    """Return the batch of some items of a Dataset; raise an error if there is none."""
    try:
        return _convert_batch(default_collate(items))
    except TypeError as error:
        raise ValueError(
            "`X` must be a Dataset whose items are tensors, arrays or numbers, or dicts or tuples"
            f" of these; got items that form no batch ({error}). Convert them in the Dataset."
        ) from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"`X` must be a Dataset whose items have one shape, to form a batch ({error}). Pad the"
            " items, or set batch_size=1."
        ) from error


def _convert_batch(inputs: Any) -> Inputs:
    """Return the batch of a Dataset with tuples for lists, and tensors without autograd graph."""
    if isinstance(inputs, Tensor):
        return check_tensor(inputs).detach()
    if isinstance(inputs, Mapping):
        return {key: _convert_batch(value) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return tuple(_convert_batch(value) for value in inputs)
    raise make_dtype_error(f"a {type(inputs).__name__}")


def check_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor; raise an error unless it contains rows of real numbers."""
    if tensor.is_nested:
        raise _make_shape_error("a nested tensor")
    if tensor.layout is not torch.strided:
        raise ValueError(
            f"`X` must be a dense tensor; got one of layout {tensor.layout}. Pass X.to_dense()."
        )
    if tensor.is_complex() or tensor.is_quantized:
        raise make_dtype_error(tensor.dtype)
    if tensor.is_meta:
        raise ValueError(
            "`X` must contain data; got a tensor on the meta device, which has none. Pass a tensor"
            " on the CPU."
        )
    return tensor


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
    if hasattr(first, "iloc") and type(first) is type(second):
        import pandas

        return pandas.concat([first, second], ignore_index=True)
    if isinstance(first, list):
        return [*first, *second]
    if sparse.issparse(first) and sparse.issparse(second):
        return sparse.vstack([first, second], format="csr")
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second])
    return np.concatenate([make_indexable(first), make_indexable(second)])


def is_on_disk(X: Any) -> bool:
    """Return whether X is an array on disk, of a FeatureStore, zarr or h5py."""
    return _package(X) in (*_PICKLED_BY_PATH, "h5py") and hasattr(X, "shape")


def is_pickled_by_path(X: Any) -> bool:
    """Return whether a pickle of X contains the path of X instead of its values."""
    return is_on_disk(X) and _package(X) in _PICKLED_BY_PATH


def _package(X: Any) -> str:
    """Return the name of the package of an object's class."""
    return type(X).__module__.split(".")[0]


def take_rows(array: Any, rows: Any) -> Any:
    """Return some rows; rows on disk are read once each, in the order on disk."""
    if isinstance(rows, slice) or not is_on_disk(array):
        return array[rows]
    chosen, places = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
    return array[chosen.tolist()][places] if len(chosen) else array[0:0]


def make_tensor(array: Any) -> Tensor:
    """Return a copy of an array as a tensor, without autograd graph and in native byte order."""
    if isinstance(array, Tensor):
        return array.detach().clone()
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise make_dtype_error(array.dtype)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def make_indexable(X: Any) -> Any:
    """Return X as arrays that slices and lists of indices select samples from."""
    if isinstance(X, Mapping | tuple):
        return map_arrays(make_indexable, X)
    X = convert_rows(X)
    if isinstance(X, Tensor | np.ndarray):
        return X
    if hasattr(X, "toarray"):
        return X.toarray()
    if hasattr(X, "to_numpy"):
        return X.to_numpy()
    return X if is_on_disk(X) else np.asarray(X)
