"""Autograd graphs of outputs: their structure, and operations that move samples.

Index legend: n samples.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
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
        samples, on any axis.
    works_along_samples : bool
        Whether an operation may do so because it works along an axis of length n.
    lengths : tuple of int
        Lengths of all axes that such operations work along, in increasing order.
    samples : int
        The number n of samples.
    uses : dict of int to int
        Number of uses of each parameter that the outputs depend on, by its id.
    """

    structure: tuple[Any, ...]
    moves_samples: bool
    works_along_samples: bool
    lengths: tuple[int, ...]
    samples: int
    uses: dict[int, int]


class GraphMemory:
    """Graphs of a network for batches of different numbers of samples.

    An axis of positions or features may have length n by chance.
    """

    def __init__(self) -> None:
        self._samples: dict[Any, set[int]] = defaultdict(set)

    def add(self, graph: Graph) -> None:
        """Remember a graph."""
        self._samples[graph.structure, graph.lengths].add(graph.samples)

    def moves_samples(self, graph: Graph) -> bool:
        """Return whether an operation of a graph may move samples.

        An operation along an axis of length n does not move them if operations of the same kinds
        work along axes of the same lengths in a batch of another number of samples. If one of these
        axes were that of the samples, the sum of the lengths would be different.
        """
        others = self._samples.get((graph.structure, graph.lengths), set()) - {graph.samples}
        return graph.moves_samples or (graph.works_along_samples and not others)


def describe_graph(outputs: Tensor) -> Graph:
    """Return the structure of the autograd graph of outputs of shape (n, d)."""
    counts: Counter[Any] = Counter()
    edges: Counter[Any] = Counter()
    parameters, cuts = [], []
    lengths: list[int] = []
    moves_samples = works_along_samples = False
    for node, followers in iterate_graph(outputs.grad_fn):
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
        elif kind in _TESTS:
            is_moving, axes = _examine(kind, node, len(outputs))
            moves_samples |= is_moving and axes is None
            works_along_samples |= is_moving and axes is not None
            lengths += axes or []
        counts[kind] += 1
    uses = {id(node.variable): edges[node] for node in parameters}
    structure = frozenset(counts.items()), frozenset(uses.items()), tuple(cuts)
    # A single sample cannot change places.
    works_along_samples &= len(outputs) > 1
    return Graph(
        structure, moves_samples, works_along_samples, tuple(sorted(lengths)), len(outputs), uses
    )


@functools.cache
def _find_kind(name: str) -> str:
    """Return the kind of an operation from the name of its node, such as IndexBackward0."""
    return name.rstrip("0123456789").removesuffix("Backward")


def iterate_graph(start: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each node of the autograd graph behind a node, with the edges from it."""
    seen, waiting = {None, start}, [start]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        yield node, node.next_functions
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)


def _examine(kind: str, node: Any, samples: int) -> tuple[bool, list[int] | None]:
    """Return whether an operation may move samples, and the lengths of the axes it works along.

    The samples may be on any axis of length n. The lengths are None if they are not known.
    """
    try:
        return _TESTS[kind](node, samples), _LENGTHS.get(kind, _unknown)(node)
    except RuntimeError:
        return True, None  # The indices have been changed in place.


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


def _list_indexed(node: Any) -> list[int] | None:
    """Return the lengths of the axes that are indexed by tensors."""
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    indices = [(axis, index) for axis, index in enumerate(node._saved_indices) if index is not None]
    if sizes is None or any(index.dtype in (torch.bool, torch.uint8) for _, index in indices):
        return None
    return [int(sizes[axis]) for axis, _ in indices]


def _selects_samples(node: Any, samples: int) -> bool:
    """Return whether an operation with one index for one axis moves samples along it."""
    return _is_along_samples(node, samples) and not _is_range(node._saved_index)


def _is_along_samples(node: Any, samples: int) -> bool:
    """Return whether an operation works along an axis of length n, or of one that is not known."""
    return _list_axis(node) in (None, [samples])


def _list_axis(node: Any) -> list[int] | None:
    """Return the length of the axis that an operation works along."""
    axis = _make_signed(node._saved_dim)
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    if sizes is None:
        # An index with one axis does not have the axes of the tensor.
        sizes = node._saved_index.shape if node._saved_index.ndim > 1 else None
    return None if sizes is None else [int(sizes[axis])]


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
    return any(
        length == samples and (factor.ndim < 3 or factor.shape[0] % samples != 0)
        for factor, length in _find_factors(node)
    )


def _find_factors(node: Any) -> Iterator[tuple[Tensor, int]]:
    """Yield the saved factors of a matrix product without parameters, and the summed lengths."""
    if any(_is_parameter(following) for following, _ in node.next_functions):
        return
    for names, axis in ((_LEFT_FACTORS, -1), (_RIGHT_FACTORS, -2)):
        for factor in (getattr(node, name, None) for name in names):
            if isinstance(factor, Tensor):
                yield factor, factor.shape[max(axis, -factor.ndim)]


def _list_contracted(node: Any) -> list[int]:
    """Return the lengths that a matrix product without parameters sums over."""
    return [length for _, length in _find_factors(node)]


def _reduces_samples(node: Any, samples: int) -> bool:
    """Return whether a sum or mean reduces an axis of length n, as with a mask of the samples."""
    return samples in _list_reduced(node)


def _list_reduced(node: Any) -> list[int]:
    """Return the lengths of the axes that a sum or mean reduces."""
    sizes = getattr(node, "_saved_self_sym_sizes", ())
    axes = getattr(node, "_saved_dim", None) or range(len(sizes))
    return [int(sizes[_make_signed(axis)]) for axis in axes]


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


def _unknown(node: Any) -> None:
    return None


def _list_rows(node: Any) -> list[int]:
    """Return the number of rows of the table of an embedding."""
    return [int(node._saved_weight_sym_argsize_0)]


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

# Lengths of the axes that these operations work along, for those that save them.
_LENGTHS: dict[str, Callable[[Any], list[int] | None]] = {
    **dict.fromkeys(["Index", "IndexPut", "IndexPutImpl"], _list_indexed),
    **dict.fromkeys(["IndexSelect", "IndexAdd", "IndexCopy", "IndexReduce"], _list_axis),
    **dict.fromkeys(["Gather", "Scatter", "ScatterAdd", "ScatterReduce"], _list_axis),
    **dict.fromkeys(["Sort", "Topk"], _list_axis),
    **dict.fromkeys(["Mm", "Addmm", "Bmm", "Baddbmm", "Mv"], _list_contracted),
    **dict.fromkeys(["Sum", "Mean"], _list_reduced),
    "Embedding": _list_rows,
}
