"""Samples that are padded to the length of the longest one of their batch.

Index legend: n samples; t positions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..batches import Inputs, list_tensors

# Number of samples that are checked, in addition to those that begin or end with the most equal
# positions.
_CHECKED = 8

# Largest rounding error of a step, relative to the largest value.
_ROUNDING = 1e-4

# Largest number of positions at the beginning and at the end of a sample that are compared.
_POSITIONS = 256


def list_shapes(inputs: Inputs) -> list[tuple[int, ...]]:
    """Return the shapes of a sample in the tensors of a batch."""
    return [tuple(tensor.shape[1:]) for tensor in list_tensors(inputs)]


def are_equal(first: Inputs, second: Inputs) -> bool:
    """Return whether two batches have the same shapes and, up to rounding, the same values."""
    pairs = list(zip(list_tensors(first), list_tensors(second), strict=True))
    return all(a.shape == b.shape for a, b in pairs) and all(_are_close(a, b) for a, b in pairs)


def _are_close(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors are equal up to rounding, relative to the largest value."""
    first, second = first.double(), second.double()
    finite = second[torch.isfinite(second)]
    tolerance = _ROUNDING * float(finite.abs().max()) if len(finite) else 0.0
    return torch.allclose(first, second, 0, tolerance, equal_nan=True)


def have_positions(inputs: Inputs) -> bool:
    """Return whether samples have positions: sequences of numbers of words, of vectors, or images.

    Other samples are vectors of features.
    """
    return any(
        tensor.ndim > 2 or (tensor.ndim == 2 and not tensor.is_floating_point())
        for tensor in list_tensors(inputs)
    )


def list_candidates(inputs: Inputs, count: int = _CHECKED) -> list[int]:
    """Return some samples of a batch: ``count`` of them, and those that are padded, if some are.

    The samples that begin, or end, with the largest number of equal positions are among them.
    """
    samples = len(list_tensors(inputs)[0])
    chosen = set(np.linspace(0, samples - 1, count).astype(int).tolist())
    for tensor in list_tensors(inputs):
        if tensor.ndim > 1:
            for values in (tensor[:, :_POSITIONS], tensor[:, -_POSITIONS:].flip(1)):
                chosen.add(int(_count_equal(values).argmax()))
    return sorted(chosen)


def _count_equal(values: Tensor) -> Tensor:
    """Return the number of positions at the beginning of each sample that equal its first one."""
    # is_equal[n,t] = 1 if x[n,t,...] = x[n,0,...], and count[n] = sum_t prod_{s <= t} is_equal[n,s]
    is_equal = (values == values[:, :1])[..., None].flatten(2).all(dim=2)
    return is_equal.to(torch.int64).cumprod(dim=1).sum(dim=1)
