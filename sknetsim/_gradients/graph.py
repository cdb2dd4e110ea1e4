"""Autograd graphs of outputs: their structure, and operations that move samples.

Index legend: n samples.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

# Number of an axis that autograd stores for the axis -1; others follow downwards.
_UNSIGNED = 2**64


# Kind of the nodes that accumulate the gradient of a parameter.
_PARAMETER = "torch::autograd::AccumulateGrad"

# Names of operations that cut or roll a tensor, with the saved arguments that say where.
_CUTS = {
    "Slice": ("_saved_dim", "_saved_start", "_saved_end", "_saved_step"),
    "SplitWithSizes": ("_saved_dim", "_saved_split_sizes"),
    "Select": ("_saved_dim", "_saved_index"),
    "Roll": ("_saved_dims", "_saved_shifts"),
    "AsStrided": ("_saved_size", "_saved_stride", "_saved_storage_offset"),
}


@dataclass(frozen=True)
class Graph:
    """Structure of the autograd graph of a batch's outputs.

    Attributes
    ----------
    structure : tuple
        Number of operations of each kind, number of uses of each parameter by its id, and places
        at which tensors are cut, in the order of the graph.
    moves_samples : bool
        Whether an operation with indices, or one of the user's own, may permute, select or pack the
        samples.
    uses : dict of int to int
        Number of uses of each parameter that the outputs depend on, by its id.
    """

    structure: tuple[Any, ...]
    moves_samples: bool
    uses: dict[int, int]


def describe_graph(outputs: Tensor) -> Graph:
    """Return the structure of the autograd graph of outputs of shape (n, d)."""
    counts: Counter[Any] = Counter()
    edges: Counter[Any] = Counter()
    parameters, cuts, moves_samples = [], [], False
    for node, followers in iterate_graph(outputs):
        for following, place in followers:
            edges[following] += 1
            if place:
                cuts.append(place)  # One of several results, as of unbind.
        kind = _find_kind(node.name())
        if isinstance(node, BackwardCFunction):
            own: Any = getattr(node, "_forward_cls", None)
            moves_samples |= not getattr(own, "keeps_samples", False)
        elif kind == _PARAMETER:
            parameters.append(node)
            continue
        elif kind in _CUTS:
            cuts += [getattr(node, saved) for saved in _CUTS[kind]]
        elif kind in _TESTS and not moves_samples:
            moves_samples = _moves_samples(kind, node, len(outputs))
        counts[kind] += 1
    uses = {id(node.variable): edges[node] for node in parameters}
    structure = frozenset(counts.items()), frozenset(uses.items()), tuple(cuts)
    return Graph(structure, moves_samples, uses)


@functools.cache
def _find_kind(name: str) -> str:
    """Return the kind of an operation from the name of its node, such as IndexBackward0."""
    return name.rstrip("0123456789").removesuffix("Backward")


def iterate_graph(outputs: Tensor) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each node of the autograd graph of the outputs, with the edges from it."""
    seen, waiting = {None, outputs.grad_fn}, [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        yield node, node.next_functions
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)


def _moves_samples(kind: str, node: Any, samples: int) -> bool:
    """Return whether an operation may move samples, according to its saved indices.

    The samples may be on any axis of length n.
    """
    try:
        return _TESTS[kind](node, samples)
    except RuntimeError:
        return True  # The indices have been changed in place.


def _indexes_samples(node: Any, samples: int) -> bool:
    """Return whether indexing by tensors selects other samples than 0, 1, 2, ..., n - 1."""
    indices = [index for index in node._saved_indices if index is not None]
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        return True
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    return any(
        (sizes is None or sizes[axis] == samples) and not _is_range(index)
        for axis, index in enumerate(node._saved_indices)
        if index is not None
    )


def _selects_samples(node: Any, samples: int) -> bool:
    """Return whether an operation with one index for one axis moves samples along it."""
    return _is_along_samples(node, samples) and not _is_range(node._saved_index)


def _is_along_samples(node: Any, samples: int) -> bool:
    """Return whether an operation works along an axis of length n."""
    axis = node._saved_dim
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    if sizes is None:
        index = node._saved_index
        # An index with one axis does not have the axes of the tensor.
        return index.ndim < 2 or index.shape[_make_signed(axis)] == samples
    return bool(sizes[_make_signed(axis)] == samples)


def _make_signed(axis: int) -> int:
    """Return the number of an axis, which autograd stores as an unsigned number."""
    return axis - _UNSIGNED if axis >= _UNSIGNED // 2 else axis


def _looks_up_samples(node: Any, samples: int) -> bool:
    """Return whether an embedding looks up rows of something other than a parameter."""
    is_parameter = hasattr(node.next_functions[0][0], "variable")
    return not is_parameter and not _is_range(node._saved_indices)


def _contracts_samples(node: Any, samples: int) -> bool:
    """Return whether a matrix product sums over an axis of length n, as with a permutation matrix.

    Products with a parameter sum over features, and products of many matrices over positions.
    """
    if any(_is_parameter(following) for following, _ in node.next_functions):
        return False
    for names, axis in ((_LEFT_FACTORS, -1), (_RIGHT_FACTORS, -2)):
        for factor in (getattr(node, name, None) for name in names):
            if isinstance(factor, Tensor) and factor.shape[max(axis, -factor.ndim)] == samples:
                return factor.ndim < 3 or factor.shape[0] % samples != 0
    return False


def _reduces_samples(node: Any, samples: int) -> bool:
    """Return whether a sum or mean reduces an axis of length n, as with a mask of the samples."""
    sizes = getattr(node, "_saved_self_sym_sizes", ())
    axes = getattr(node, "_saved_dim", None) or range(len(sizes))
    return any(sizes[_make_signed(axis)] == samples for axis in axes)


def _is_parameter(node: Any) -> bool:
    """Return whether a node is that of a parameter, or of its transpose."""
    if node is not None and _find_kind(node.name()) in ("T", "Transpose"):
        node = node.next_functions[0][0]
    return hasattr(node, "variable")


def _is_range(index: Tensor) -> bool:
    """Return whether an index is 0, 1, 2, ... along its first axis."""
    if index.ndim == 0:
        return False
    positions = torch.arange(len(index), device=index.device)
    return bool((index.reshape(len(index), -1) == positions[:, None]).all())


def _always(node: Any, samples: int) -> bool:
    return True


# Saved arguments of matrix products.
_LEFT_FACTORS = ("_saved_self", "_saved_mat1", "_saved_batch1")
_RIGHT_FACTORS = ("_saved_mat2", "_saved_batch2", "_saved_vec")

# Tests of the operations that take indices, and of matrix products.
_TESTS: dict[str, Callable[[Any, int], bool]] = {
    "Index": _indexes_samples,
    "IndexPut": _indexes_samples,
    "IndexPutImpl": _indexes_samples,
    "IndexSelect": _selects_samples,
    "IndexAdd": _selects_samples,
    "IndexCopy": _selects_samples,
    "IndexReduce": _selects_samples,
    "Gather": _is_along_samples,
    "Scatter": _is_along_samples,
    "ScatterAdd": _is_along_samples,
    "ScatterReduce": _is_along_samples,
    "Sort": _is_along_samples,
    "Topk": _is_along_samples,
    "Embedding": _looks_up_samples,
    "EmbeddingBag": _looks_up_samples,
    "torch::autograd::CopySlices": _always,
    "Mm": _contracts_samples,
    "Addmm": _contracts_samples,
    "Bmm": _contracts_samples,
    "Baddbmm": _contracts_samples,
    "Mv": _contracts_samples,
    "Sum": _reduces_samples,
    "Mean": _reduces_samples,
    "MaskedSelect": _always,
    "MaskedScatter": _always,
    "Take": _always,
    "Put": _always,
    "PackPaddedSequence": _always,
}
