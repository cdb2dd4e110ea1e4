"""Samples of X in its own form, for the steps of a Pipeline before a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch.utils.data import Dataset, Subset

from ..batches import Inputs, list_tensors
from .arrays import (
    check_has_rows,
    check_lengths,
    concatenate_arrays,
    is_arrow,
    is_on_disk,
    list_lengths,
    map_arrays,
    take_rows,
)
from .items import ListDataset, is_hugging_face_dataset, is_read_by_items
from .padding import have_positions, list_candidates, list_shapes
from .samples import Samples


class RawSamples(Samples):
    """Samples of X in its own form, which is not converted to arrays before it is needed.

    Parameters
    ----------
    X : object
        A table, a list or column of texts, an array, a sparse matrix, a Dataset or another
        sequence, or a dict or tuple of these.
    rows : sequence of int or None
        Row of the user's X for each sample, for errors. None: X is the user's X.
    """

    def __init__(self, X: Any, rows: Sequence[int] | None = None):
        check_has_rows(X)
        # scikit-learn takes a tuple of texts for texts.
        is_texts = isinstance(X, tuple) and all(isinstance(text, str) for text in X)
        X = list(X) if is_texts else X
        # Some sparse arrays are dicts, and some have no rows.
        self.data = X.tocsr() if sparse.issparse(X) else X
        self._length = check_lengths(list_lengths(self.data))
        self.rows = range(self._length) if rows is None else rows
        # The steps may pad texts and sequences. The rows of an array of numbers have one length.
        self.has_columns = (
            isinstance(self.data, Mapping) or len(getattr(self.data, "shape", ())) > 1
        )
        dtype = getattr(self.data, "dtype", None)
        is_numbers = isinstance(dtype, torch.dtype | np.dtype) and dtype is not np.dtype(object)
        self.may_be_padded = not (self.has_columns and is_numbers)

    @property
    def is_read_by_items(self) -> bool:
        """True if the samples are items, which may load slowly."""
        return is_read_by_items(self.data)

    def __reduce__(self) -> tuple[Any, ...]:
        return RawSamples, (self.data, self.rows), {"labels": self.labels}

    def get_skorch_data(self) -> Any:
        """Return X, which the steps of the Pipeline take."""
        return self.data

    def _make(self, X: Any, rows: Sequence[int] | None = None) -> RawSamples:
        return RawSamples(X, rows)

    def _select(self, indices: Sequence[int]) -> RawSamples:
        """Return the samples at some indices, in the form of X."""
        chosen = [int(index) for index in indices]
        data = map_arrays(lambda part: _select_rows(part, chosen), self.data)
        return RawSamples(data, [self.rows[index] for index in chosen])

    def _part(self, rows: slice) -> RawSamples:
        """Return the samples of a slice, in the form of X."""
        data = map_arrays(lambda part: _select_rows(part, rows), self.data)
        return RawSamples(data, self.rows[rows])

    def append(self, others: Samples) -> Samples:
        """Return these samples, followed by others, which may have another form."""
        if _are_joined(self.data, others.data):
            return RawSamples(concatenate_arrays(self.data, others.data))
        return JoinedSamples([self, others], range(len(self) + len(others)))

    def describe_non_finite(self, index: int) -> None:
        """Return None: the steps before the network may take NaN."""

    def find_non_finite(self) -> None:
        """Return None: the steps before the network may take NaN."""


class PreparedSamples(Samples):
    """Samples after the steps before a network, which may have padded them.

    Parameters
    ----------
    samples : Samples
        All samples after the steps.
    prepare : callable
        Function that returns the samples at some indices, transformed on their own.
    had_columns : bool
        Whether the samples were the rows of a table.
    """

    def __init__(
        self, samples: Samples, prepare: Callable[[Sequence[int]], Samples], had_columns: bool
    ):
        vars(self).update(vars(samples))
        self._prepare = prepare
        # Vectors made of the columns of a table are features, which have one length.
        is_vector = had_columns and not have_positions(samples.take(slice(0, 1)))
        self.may_be_padded = samples.may_be_padded or not is_vector

    def take_alone(self, index: int) -> Inputs:
        """Return the batch of the sample at an index, transformed on its own."""
        return self._prepare([index]).at([0])

    def iterate_independent(self, count: int) -> Iterator[Inputs]:
        """Yield all samples in batches of ``count``, or one by one if some are padded."""
        start = 0
        for inputs in super().iterate_independent(count):
            stop = start + len(list_tensors(inputs)[0])
            if self._are_padded(inputs, start):
                yield from (self.take_alone(index) for index in range(start, stop))
            else:
                yield inputs
            start = stop

    def _are_padded(self, inputs: Inputs, start: int) -> bool:
        """Return whether some of a few samples of a batch are shorter on their own."""
        shapes = list_shapes(inputs)
        return self.may_be_padded and any(
            list_shapes(self.take_alone(start + row)) != shapes for row in list_candidates(inputs)
        )


class JoinedSamples(RawSamples):
    """Samples in more than one form, which the steps of a Pipeline transform part by part.

    Parameters
    ----------
    parts : list of Samples
        Samples, each in a form of its own.
    order : sequence of int
        Position of each sample in the concatenation of the parts.
    """

    def __init__(self, parts: list[Samples], order: Sequence[int]):
        self._parts = self.data = parts
        self._order = order
        self._length = len(order)
        rows = [row for part in parts for row in part.rows]
        self.rows = [rows[position] for position in order]

    is_read_by_items = may_be_padded = True  # This is true for some parts.
    has_columns = False

    @property
    def parts(self) -> list[Samples]:
        """Parts that the steps before the network transform one after the other."""
        return self._parts

    def __reduce__(self) -> tuple[Any, ...]:
        return JoinedSamples, (self._parts, self._order), {"labels": self.labels}

    def join_parts(self, parts: list[Samples]) -> Samples:
        """Return the samples of the parts in the order of these samples."""
        joined = functools.reduce(lambda first, second: first.append(second), parts)
        joined = joined.select(self._order)
        joined.rows = self.rows
        return joined

    def _select(self, indices: Sequence[int]) -> JoinedSamples:
        """Return the samples at some indices, with the parts that contain them."""
        chosen = np.array([self._order[int(index)] for index in indices])
        parts, places, start = [], [], 0
        for part in self._parts:
            own = np.flatnonzero((start <= chosen) & (chosen < start + len(part)))
            if len(own):
                parts.append(part.select((chosen[own] - start).tolist()))
                places.append(own)
            start += len(part)
        return JoinedSamples(parts, np.argsort(np.concatenate(places)).tolist())

    def _part(self, rows: slice) -> JoinedSamples:
        """Return the samples of a slice, with the parts that contain them."""
        return self._select(range(rows.start, rows.stop))

    def append(self, others: Samples) -> JoinedSamples:
        """Return these samples, followed by others, which may have another form."""
        order = [*self._order, *(sum(map(len, self._parts)) + row for row in range(len(others)))]
        return JoinedSamples([*self._parts, others], order)


def _are_joined(first: Any, second: Any) -> bool:
    """Return whether two X are joined before the steps: lists, or columns or arrays of one kind."""
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape[1:] == second.shape[1:]
    return isinstance(first, list) or (hasattr(first, "iloc") and not hasattr(first, "columns"))


def _select_rows(part: Any, rows: Any) -> Any:
    """Return some rows of a part of X, at indices or in a slice, in its own form."""
    if hasattr(part, "iloc"):
        return part.iloc[rows]
    if is_on_disk(part):
        return take_rows(part, rows)
    if is_arrow(part):
        return part[rows] if isinstance(rows, slice) else part.take(rows)
    if sparse.issparse(part):
        return part.tocsr()[rows]
    if not is_read_by_items(part) and not isinstance(part, list):
        return part[rows]
    indices = range(*rows.indices(len(part))) if isinstance(rows, slice) else rows
    if is_hugging_face_dataset(part):
        return part.select(indices)
    if isinstance(part, Dataset):
        if isinstance(rows, slice):
            return Subset(part, indices)
        return ListDataset([part[index] for index in indices])
    if hasattr(part, "indices_"):  # A SliceDataset of skorch.
        return part[np.asarray(indices)]
    return [part[index] for index in indices]
