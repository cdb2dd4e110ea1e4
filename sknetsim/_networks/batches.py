"""Batches of samples as a network takes them: a tensor, or a dict or tuple of tensors."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import default_collate

from ..exceptions import is_out_of_memory

Inputs = Any  # A Tensor, or a dict or tuple of Inputs.


def map_tensors(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Apply a function to each tensor of a batch."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: map_tensors(function, value) for key, value in inputs.items()}
    if not isinstance(inputs, tuple | list):
        raise TypeError(
            "`inputs` must be a tensor, or a dict or tuple of tensors; got a"
            f" {type(inputs).__name__}. Convert it to a tensor."
        )
    return tuple(map_tensors(function, value) for value in inputs)


def list_tensors(inputs: Inputs) -> list[Tensor]:
    """Return the tensors of a batch; those of a dict in the order of their names."""
    if isinstance(inputs, Tensor):
        return [inputs]
    is_dict = isinstance(inputs, Mapping)
    parts = [inputs[name] for name in sorted(inputs)] if is_dict else inputs
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


def make_shape_error(description: str) -> ValueError:
    """Return the error for rows that differ in shape."""
    return ValueError(
        f"`X` must contain rows of one shape; got {description}. Pad them, or pass a Dataset of the"
        " rows and set batch_size=1. The `iterator_valid__collate_fn` of a skorch net may pad them,"
        " too."
    )


def collate(items: list[Any]) -> Inputs:
    """Return the batch of some items of X; raise an error if they form none."""
    try:
        return convert_batch(default_collate(items))
    except TypeError as error:
        raise ValueError(
            "`X` must be a Dataset or sequence whose items are tensors, arrays or numbers, or dicts"
            f" or tuples of these; got items that form no batch ({error}). Convert them in the"
            " Dataset."
        ) from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"`X` must have items of one shape, to form a batch ({error}). Pad the items, pass a"
            " skorch net whose `iterator_valid__collate_fn` pads them, or set batch_size=1."
        ) from error


def convert_batch(inputs: Any, place: str = "") -> Inputs:
    """Return a batch with tuples for lists, and with tensors without autograd graph for arrays.

    ``place`` names the part of the batch in errors.
    """
    if isinstance(inputs, PackedSequence):
        raise ValueError(
            "`estimator` must form batches of padded tensors, whose first axis is that of the"
            " samples; got a PackedSequence. Pad the samples in `collate_fn`, and pack them in the"
            " forward pass."
        )
    if isinstance(inputs, Tensor):
        return check_tensor(inputs).detach()
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "fiub":
        return torch.from_numpy(inputs)
    if isinstance(inputs, Mapping):
        return {key: convert_batch(value, f" in {key!r}") for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        are_numbers = all(isinstance(value, numbers.Number) for value in inputs)
        parts = inputs if are_numbers else [convert_batch(value, place) for value in inputs]
        return torch.tensor(parts) if are_numbers else tuple(parts)
    raise make_dtype_error(f"a {type(inputs).__name__}{place}")


def check_batch(inputs: Inputs, count: int) -> Inputs:
    """Return a batch; raise an error unless the first axis of each tensor is that of samples."""
    shapes = [tuple(tensor.shape) for tensor in list_tensors(inputs)]
    if any(shape[:1] != (count,) for shape in shapes):
        raise ValueError(
            "`estimator` must form batches whose tensors have the samples on their first axis; got"
            f" tensors of the shapes {', '.join(map(str, shapes))} for {count} samples. Change its"
            " `collate_fn` or iterator."
        )
    return inputs


def join_batches(batches: Sequence[Inputs]) -> Inputs:
    """Return batches of the same structure and sample shape as one batch."""
    first = batches[0]
    if isinstance(first, Tensor):
        if len({batch.shape[1:] for batch in batches}) > 1:
            raise make_shape_error("batches of an iterator that pads each to another length")
        return torch.cat(tuple(batches))
    if isinstance(first, Mapping):
        return {key: join_batches([batch[key] for batch in batches]) for key in first}
    return tuple(join_batches(parts) for parts in zip(*batches, strict=True))


def check_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor; raise an error unless it contains rows of real numbers."""
    if tensor.is_nested:
        raise make_shape_error("a nested tensor")
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
