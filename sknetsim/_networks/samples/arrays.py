"""Arrays of X: each has the samples on its first axis. Errors say why some X does not."""

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
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..batches import check_tensor, make_dtype_error, make_shape_error
from ..object_state import get_package

# Parts of the messages by which numpy and scikit-learn refuse values that are not numbers.
_NOT_NUMBERS = ("could not convert", "array element with a sequence", "arrays of bytes/strings")

# Packages whose arrays on disk are pickled as their path.
_PICKLED_BY_PATH = ("sknetsim", "zarr")

# Types of values without rows.
_WITHOUT_ROWS = (str, bytes, set, numbers.Number, Iterator)


@contextlib.contextmanager
def explain_dtype(X: Any) -> Iterator[None]:
    """Name X in errors, inside the block, for values that are not numbers."""
    if isinstance(X, np.ndarray) and X.dtype.kind in "SU":
        raise make_dtype_error(repr(X.dtype))
    if is_table(X):
        convert_table(X)  # Its error names the column.
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
    check_has_rows(X)
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            "`X` must have no masked values; got an array with a mask, which networks do not take."
            " Pass X.filled(value), with a value that the network takes for a missing one."
        )
    return X


def _stack(rows: list[Any]) -> Any:
    """Return a list of rows as one array, or a list of tensors as one tensor."""
    if any(isinstance(row, tuple) and len(row) == 2 and hasattr(row[0], "shape") for row in rows):
        raise ValueError(
            "`X` must contain samples without labels; got a list of pairs, as scikit-learn makes it"
            " of a Dataset. Pass skorch's SliceDataset of the Dataset, and its labels as y."
        )
    try:
        if rows and all(isinstance(row, Tensor) for row in rows):
            return torch.stack([row.detach() for row in rows])
        return np.asarray(rows)
    except (RuntimeError, ValueError) as error:
        raise make_shape_error(f"a list whose rows differ in length or shape ({error})") from error


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


def check_same_form(first: Any, second: Any) -> None:
    """Raise an error unless two X consist of the same arguments, with samples of one shape."""
    forms = [map_arrays(lambda array: tuple(array.shape[1:]), X) for X in (first, second)]
    if forms[0] != forms[1]:
        raise ValueError(
            "`X` must have the form of the samples before it, with the same arguments and shapes;"
            f" got samples of the form {forms[1]} after {forms[0]}. Pass both in one form."
        )


def concatenate_arrays(first: Any, second: Any) -> Any:
    """Return the samples of the first X, followed by the samples of the second, in one form."""
    if isinstance(first, Mapping):
        return {key: concatenate_arrays(value, second[key]) for key, value in first.items()}
    if isinstance(first, tuple):
        return tuple(concatenate_arrays(*pair) for pair in zip(first, second, strict=True))
    if isinstance(first, Tensor):
        return torch.cat([first.detach(), torch.as_tensor(second, device=first.device).detach()])
    if hasattr(first, "iloc") and type(first) is type(second):
        import pandas

        return pandas.concat([first, second], ignore_index=True)
    if isinstance(first, list):
        return [*first, *second]
    if sparse.issparse(first) and sparse.issparse(second):
        return sparse.vstack([first, second], format="csr")
    if isinstance(first, np.ndarray) and isinstance(second, Tensor):
        return np.concatenate([first, second.detach().cpu().numpy()])
    return np.concatenate([make_indexable(first), make_indexable(second)])


def is_on_disk(X: Any) -> bool:
    """Return whether X is an array on disk, of a FeatureStore, zarr or h5py."""
    return get_package(type(X).__module__) in (*_PICKLED_BY_PATH, "h5py") and hasattr(X, "shape")


def is_pickled_by_path(X: Any) -> bool:
    """Return whether a pickle of X contains the path of X instead of its values."""
    return is_on_disk(X) and get_package(type(X).__module__) in _PICKLED_BY_PATH


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
    # torch has no numbers of more than 64 bits.
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8
    dtype = np.dtype(np.float64) if wide else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=dtype))


def make_indexable(X: Any) -> Any:
    """Return X as arrays that slices and lists of indices select samples from."""
    if isinstance(X, Mapping):
        return {name: _check_numbers(make_indexable(part), name) for name, part in X.items()}
    if isinstance(X, tuple):
        return tuple(make_indexable(part) for part in X)
    X = convert_rows(X)
    if isinstance(X, Tensor | np.ndarray):
        return X
    if hasattr(X, "toarray"):
        return X.toarray()
    if is_table(X):
        return convert_table(X)
    if hasattr(X, "to_numpy"):
        return X.to_numpy()
    return X if is_on_disk(X) else np.asarray(X)


def is_arrow(X: Any) -> bool:
    """Return whether X is a table or a column of pyarrow."""
    return get_package(type(X).__module__) == "pyarrow" and hasattr(X, "to_pandas")


def check_texts(X: Any, step: Any) -> None:
    """Raise an error if a step that takes texts gets a table or dict, of which it reads the names.

    The tags of a vectorizer of scikit-learn say that it takes strings, and no arrays of two axes.
    """
    tags = get_tags(step).input_tags if isinstance(step, BaseEstimator) else None
    has_names = is_table(X) or isinstance(X, Mapping)
    if tags is not None and tags.string and not tags.two_d_array and has_names:
        raise ValueError(
            f"`X` must be a list or column of texts for a {type(step).__name__}; got a"
            f" {type(X).__name__}, of which it would read the names of columns. Pass the column"
            ' that contains the texts, such as X["text"].'
        )


def is_table(X: Any) -> bool:
    """Return whether X is a table of pandas or polars."""
    return hasattr(X, "columns") and hasattr(X, "to_numpy")


def convert_table(X: Any) -> np.ndarray:
    """Return a table as an array of numbers; an error names the column without numbers."""
    values = X.to_numpy()
    if values.dtype.kind in "fiub":
        return values
    places = range(len(X.columns))
    columns = [X.iloc[:, [k]] if hasattr(X, "iloc") else X[:, [k]] for k in places]
    return np.hstack([convert_column(columns[k], X.columns[k]) for k in places])


def convert_column(column: Any, name: Any) -> np.ndarray:
    """Return a table of one column as an array of numbers of shape (n, 1)."""
    values = column.to_numpy()
    if values.dtype == object and hasattr(column, "iloc"):
        # Missing values are objects; NaN stands for them in an array of numbers.
        with contextlib.suppress(TypeError, ValueError):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return _check_numbers(values, name)


def _check_numbers(values: Any, name: Any) -> Any:
    """Return the values of a column; raise an error that names it unless they are numbers."""
    if isinstance(values, np.ndarray) and values.dtype.kind not in "fiub":
        raise make_dtype_error(f"{values.dtype} in {name!r}")
    return values


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


def check_has_rows(X: Any) -> None:
    """Raise an error if X has no rows, like a text, or no length, like a loader."""
    if X is None:
        raise ValueError("`X` must be given; got None. Pass the samples.")
    if isinstance(X, Tensor):
        check_tensor(X)
    if isinstance(X, _WITHOUT_ROWS) or getattr(X, "shape", None) == ():
        raise ValueError(
            f"`X` must have the samples on its first axis; got a {type(X).__name__} without axes."
            " Pass an array with a row for each sample, or a list of texts."
        )
    has_length = any(hasattr(X, name) for name in ("__len__", "__array__", "shape"))
    if isinstance(X, DataLoader | IterableDataset) or not has_length:
        raise TypeError(
            "`X` must be an array, tensor, table, dict, tuple, sequence or Dataset with a length;"
            f" got a {type(X).__name__}, which may shuffle or drop samples, or has no length. Pass"
            " the `dataset` of a loader instead, or the collected table."
        )
