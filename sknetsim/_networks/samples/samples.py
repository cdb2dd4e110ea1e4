"""Samples in each form that a network takes: arrays, tables, dicts, tuples, or items."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import gen_batches
from torch import Tensor

from ..batches import Inputs, describe_non_finite, list_tensors
from .arrays import (
    check_lengths,
    check_same_form,
    concatenate_arrays,
    convert_rows,
    is_on_disk,
    list_lengths,
    make_indexable,
    make_tensor,
    map_arrays,
    take_rows,
)
from .items import Batching, Items, SequenceOfInputs, find_items, has_pairs, make_items

# Number of samples that are checked for NaN at a time.
_CHECKED_SAMPLES = 1024

# Number of samples of unequal lengths for which the memory per sample is measured.
_MEASURED_SAMPLES = 8


class Samples:
    """Random access to the samples of X, as new tensors on the CPU.

    Parameters
    ----------
    X : array-like, Tensor, DataFrame, sparse matrix, dict, tuple, Dataset or sequence
        A dict (skorch's SliceDict included) or a tuple contains one array per argument of the
        network. The items of a Dataset of torch are (x, y) pairs, as in skorch, or only x. The
        items of a Dataset of Hugging Face, of another sequence, and of a list of dicts are x.
    rows : sequence of int or None
        Row of the user's X for each sample, for errors. None: X is the user's X.
    batching : Batching or None
        How the network reads X and forms batches; None if it does so like torch.

    Attributes
    ----------
    data : object
        X itself, which skorch and the steps of a Pipeline take.
    may_be_padded : bool
        Whether the samples of a batch may be padded to the length of the longest one.
    has_columns : bool
        Whether the samples are the rows of a table or array.
    labels : Tensor or None
        Label of each sample, on the CPU, at which its loss is differentiated, or the weights of
        `Combinations`; None for the predicted labels, and for other outputs.
    """

    has_columns = True

    labels: Tensor | None = None

    def __init__(self, X: Any, rows: Sequence[int] | None = None, batching: Batching | None = None):
        self._batching = batching
        items = find_items(X, batching)
        self.data = convert_rows(X) if items is None else X
        self._source = make_indexable(self.data) if items is None else items
        self._length = check_lengths(list_lengths(self._source))
        self.rows: Sequence[int] = range(self._length) if rows is None else rows
        self.may_be_padded = self.is_read_by_items and bool(batching and batching.iterate)

    @classmethod
    def of(cls, X: Any) -> Samples:
        """Return X if it is a `Samples` object already, else the samples of X."""
        return X if isinstance(X, Samples) else cls(X)

    def __len__(self) -> int:
        return self._length

    @property
    def is_read_by_items(self) -> bool:
        """True if the samples are items, which may load slowly."""
        return isinstance(self._source, Items)

    @property
    def measured(self) -> slice:
        """Samples for which the memory per sample is measured: one, or some of unequal lengths."""
        return slice(0, min(_MEASURED_SAMPLES, len(self)) if self.may_be_padded else 1)

    def is_same(self, other: Samples) -> bool:
        """Return whether both contain the same object X, with equal labels.

        Equal values of two objects do not count.
        """
        return self is other or (self.data is other.data and _are_equal(self.labels, other.labels))

    def with_labels(self, labels: Tensor | None) -> Self:
        """Return the same samples with these labels."""
        labelled = object.__new__(type(self))
        vars(labelled).update(vars(self), labels=labels)
        return labelled

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data, self.rows, self._batching), {"labels": self.labels}

    def _make(self, X: Any, rows: Sequence[int] | None = None) -> Samples:
        """Return samples that form batches like these."""
        return Samples(X, rows, self._batching)

    def get_skorch_data(self) -> Any:
        """Return X in the form in which skorch takes it."""
        reads_itself = self._batching is not None and self._batching.read is not None
        # skorch takes labels from a Dataset, and not those that are passed.
        if reads_itself or has_pairs(self.data):
            return self.data
        if isinstance(self._source, Items):
            return SequenceOfInputs(self._source)
        return self._source if isinstance(self.data, Mapping | tuple) else self.data

    def take(self, rows: slice) -> Inputs:
        """Return the samples of a slice as a batch."""
        return self.at(range(*rows.indices(len(self))), rows)

    def take_alone(self, index: int) -> Inputs:
        """Return the batch of the sample at an index on its own.

        It may be shorter than in a batch with other samples, see ``may_be_padded``.
        """
        return self.at([index])

    def iterate_independent(self, count: int) -> Iterator[Inputs]:
        """Yield all samples in batches of ``count``, in which no sample is padded.

        Items are yielded one by one.
        """
        for rows in gen_batches(len(self), 1 if self.is_read_by_items else count):
            yield self.at(range(rows.start, rows.stop), rows)

    def take_finite(self, rows: slice) -> Inputs:
        """Return the samples of a slice as a batch, and check that they are finite."""
        inputs = self.take(rows)
        index = _find_non_finite_row(inputs)
        if index is not None:
            raise ValueError(
                f"`X` must be finite; got NaN or infinity, first in row {self.rows[rows][index]}."
                " Impute or drop these rows."
            )
        return inputs

    def at(self, indices: Sequence[int], rows: Any = None) -> Inputs:
        """Return the samples at some indices; a slice ``rows`` of the same samples is faster."""
        if isinstance(self._source, Items):
            return self._source.read(indices)
        rows = indices if rows is None else rows
        return map_arrays(lambda array: make_tensor(take_rows(array, rows)), self._source)

    def select(self, indices: Sequence[int]) -> Samples:
        """Return copies of the samples at some indices, with their labels."""
        return self._select(indices).with_labels(_take_labels(self.labels, list(indices)))

    def _select(self, indices: Sequence[int]) -> Samples:
        """Return `select` without the labels."""
        rows = [self.rows[int(index)] for index in indices]
        if isinstance(self._source, Items):
            return self._make(self._source.select(indices), rows)
        if isinstance(self.data, np.ndarray):
            return self._make(self.data[list(indices)], rows)  # Steps of a Pipeline take arrays.
        return self._make(self.at(indices), rows)

    def part(self, rows: slice) -> Samples:
        """Return the samples of a slice in the form of X, if possible without reading them."""
        return self._part(rows).with_labels(_take_labels(self.labels, rows))

    def _part(self, rows: slice) -> Samples:
        """Return `part` without the labels."""
        if isinstance(self._source, Items):
            return self._make(self._source.part(rows), self.rows[rows])
        part = map_arrays(lambda array: array[rows], self._source)
        return self._make(part, self.rows[rows])

    @property
    def parts(self) -> list[Samples]:
        """Parts that the steps before the network transform one after the other."""
        return [self]

    def join_parts(self, parts: list[Samples]) -> Samples:
        """Return the samples of the transformed parts."""
        return parts[0]

    def copy_tensors(self) -> Samples:
        """Return the samples with copies of tensors on the CPU, for a pickle.

        The pickle of a part of a tensor would contain the whole tensor.
        """
        return self._make(map_arrays(_copy_tensor, self.data), self.rows).with_labels(self.labels)

    def append(self, others: Samples) -> Samples:
        """Return these samples, followed by others, all without labels."""
        sources = (self._source, others._source)
        if not any(isinstance(source, Items) for source in sources):
            check_same_form(*sources)
            return self._make(concatenate_arrays(*sources))
        first, second = (
            source if isinstance(source, Items) else make_items(source, self._batching)
            for source in sources
        )
        return self._make(first.append(second))

    def reshape(self, shape: Sequence[int]) -> Samples:
        """Reshape each row; a dict, tuple or items are returned unchanged."""
        if isinstance(self._source, Mapping | tuple | Items):
            return self
        array: Any = np.asarray(self.data) if is_on_disk(self.data) else self._source
        if math.prod(array.shape[1:]) != math.prod(shape):
            raise ValueError(
                f"`input_shape` must have as many values as a row of X, whose rows have the shape"
                f" {tuple(array.shape[1:])}; got {tuple(shape)}, of {math.prod(shape)} values. Set"
                " it to the shape of one sample of the network."
            )
        return self._make(array.reshape(len(array), *shape), self.rows)

    def check_finite(self) -> None:
        """Check that X is finite; items are not checked, because they may load slowly."""
        for rows in self._list_checked():
            self.take_finite(rows)

    def _list_checked(self) -> list[slice]:
        """Return the slices that are checked for NaN."""
        return [] if self.is_read_by_items else list(gen_batches(len(self), _CHECKED_SAMPLES))

    def describe_non_finite(self, index: int) -> str | None:
        """Return whether a sample is finite, as a part of a sentence."""
        return describe_non_finite(self.at([index]))

    def find_non_finite(self) -> int | None:
        """Return the index of the first sample with NaN or infinity, or None if there is none.

        Items are not searched, because they may load slowly.
        """
        for rows in self._list_checked():
            index = _find_non_finite_row(self.take(rows))
            if index is not None:
                return int(rows.start + index)
        return None


def _find_non_finite_row(inputs: Inputs) -> int | None:
    """Return the first row of a batch with NaN or infinity, or None if there is none."""
    first: list[int] = []
    for tensor in list_tensors(inputs):
        # A finite sum shows in one pass that all numbers are finite. The sum of finite numbers may
        # overflow, so each number is checked if the sum is not finite.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum()):
            is_finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(dim=1)
            first += (~is_finite).nonzero()[:1, 0].tolist()
    return min(first, default=None)


def _take_labels(labels: Tensor | None, rows: Any) -> Tensor | None:
    """Return a copy of the labels of some rows, whose pickle does not contain the others."""
    return None if labels is None else labels[rows].clone()


def _are_equal(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether two sets of labels are equal, or both missing."""
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def _copy_tensor(array: Any) -> Any:
    """Return a copy of a tensor on the CPU, and other arrays unchanged."""
    return array.detach().cpu().clone() if isinstance(array, Tensor) else array
