"""Batches of samples as a network takes them: a tensor, or a dict or tuple of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

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
