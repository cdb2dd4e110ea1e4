"""Batches of samples as a network takes them: a tensor, or a dict or tuple of tensors.

X consists of arrays with a row per sample. Errors say why some X does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Parts of the messages by which numpy and scikit-learn refuse values that are not numbers.
_NOT_NUMBERS = ("could not convert", "array element with a sequence", "arrays of bytes/strings")

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


def slice_batch(inputs: Inputs, rows: slice) -> Inputs:
    """Return the samples of a batch in a slice."""
    return map_tensors(lambda tensor: tensor[rows], inputs)


def take_batch(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """Return copies of some samples of a batch."""
    return map_tensors(lambda tensor: tensor[list(rows)], inputs)


def describe_non_finite(inputs: Inputs) -> str:
    """Return whether a batch contains NaN or infinity, as part of a sentence about X."""
    floating = [tensor for tensor in list_tensors(inputs) if tensor.is_floating_point()]
    tests = {"NaN": torch.isnan, "infinity": torch.isinf}
    kinds = [name for name, test in tests.items() if any(test(t).any() for t in floating)]
    if not kinds:
        return "X is finite"
    dtype = str(floating[0].dtype).removeprefix("torch.")
    # Large float64 numbers become infinite in the dtype of a float32 network.
    return "X contains " + " and ".join(kinds) + (f" in {dtype}" if "infinity" in kinds else "")


def make_dtype_error(dtype: Any, reason: str = "") -> ValueError:
    """Return the error for an array whose dtype is not that of real numbers."""
    return ValueError(
        f"`X` must contain floating-point, integer or boolean numbers; got {dtype}{reason}. Convert"
        " X to one of these."
    )


@contextlib.contextmanager
def explain_dtype(X: Any) -> Iterator[None]:
    """Name X in numpy's errors, inside the block, for values that are not numbers."""
    try:
        yield
    except ValueError as error:
        if any(text in str(error) for text in _NOT_NUMBERS):
            dtype = getattr(X, "dtype", type(X).__name__)
            raise make_dtype_error(dtype, f" ({error})") from error
        raise


def convert_rows(X: Any, sample_shape: Sequence[int] | None = None) -> Any:
    """Return X, with lists as arrays or tensors; raise an error if X is not a set of samples.

    Parameters
    ----------
    X : object
        The samples.
    sample_shape : sequence of int or None
        The shape of one sample, if it is known.
    """
    if isinstance(X, list):
        return _stack(X)
    if X is None:
        raise ValueError("`X` must be given; got None. Pass the samples.")
    shape = getattr(X, "shape", None) if hasattr(X, "dtype") else None
    if shape is not None and len(shape) == 0:
        raise ValueError(
            "`X` must have the samples on its first axis; got one number, without axes. Pass an"
            " array with a row for each sample."
        )
    is_row = isinstance(X, np.ndarray) and X.ndim == 1  # scikit-learn has an error for these.
    if shape is not None and not is_row and tuple(shape) == sample_shape:
        raise ValueError(
            f"`X` must have the samples on its first axis; got the shape {tuple(shape)} of one"
            f" sample. Pass X[None], of shape {(1, *shape)}."
        )
    return X


def _stack(rows: list[Any]) -> Any:
    """Return a list of rows as one array, or a list of tensors as one tensor."""
    try:
        if rows and all(isinstance(row, Tensor) for row in rows):
            return torch.stack([row.detach() for row in rows])
        return np.asarray(rows)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            "`X` must contain rows of one shape; got a list whose rows differ in length or shape"
            f" ({error}). Pad them, or pass a Dataset of the rows and set batch_size=1."
        ) from error
