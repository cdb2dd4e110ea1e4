"""Reductions over all pairs of samples: rectangles of pairs by workers, and their tiles one by one.

A rectangle contains the pairs of a slice of rows and a slice of columns.

Index legend: n, m samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .._networks.memory import allocate
from .._networks.samples import Samples
from .chunks import Chunk, Source
from .lost_gradients import LostGradients, report_lost_gradients
from .pairs import UNIT_WHITENINGS, iterate_pair_values, mirror
from .parallel import (
    Parts,
    count_workers,
    relative_slice,
    resolve_part,
    run_tasks,
    split_evenly,
)

_FEWER_SAMPLES = (
    "Pass fewer samples at a time, or use NetworkDensity or NetworkNeighbors, which do not need the"
    " whole matrix"
)


class Reduction(Protocol):
    """Result for all pairs of a slice of rows and a slice of columns, built tile by tile."""

    def add(self, rows: slice, columns: slice, values: Tensor) -> None:
        """Add the values of a tile, of shape (n, m, ...)."""

    def merge(self, other: Any) -> None:
        """Add the result for some of the pairs."""


def reduce_pairs(
    source: Source,
    X: Samples,
    Y: Any,
    make: Callable[[slice, slice], Any],
    function: Callable[[Chunk, Chunk], Tensor],
    whitenings: tuple[str, str] = UNIT_WHITENINGS,
    verbose: Any = 0,
) -> Any:
    """Return a `Reduction` of the values of a function of all pairs, computed by all workers.

    Parameters
    ----------
    source : Source
        The source of Jacobians.
    X : Samples
        The samples of the rows.
    Y : Samples or None
        The samples of the columns; None for those of X.
    make : callable
        Function that returns an empty `Reduction` for a slice of rows and a slice of columns.
    function : callable
        Function of two tiles that returns their values, see `iterate_pair_values`.
    whitenings : tuple
        Whitening of X and of Y.
    verbose : int
        Whether to show a progress bar.
    """
    samples, others = len(X), len(X if Y is None else Y)
    result = make(slice(0, samples), slice(0, others))
    jobs = count_workers(source)
    if jobs == 1:
        for tile in iterate_pair_values(source, X, Y, whitenings, function, verbose):
            result.add(*tile)
        return result
    symmetric = Y is None and whitenings[0] == whitenings[1]
    rectangles = _make_rectangles(samples, others, jobs, symmetric)
    sets = Parts(X, True), Parts(X if Y is None else Y, True)
    for checked in (X,) if Y is None else (X, Y):
        source.check_samples_independent(checked)
    tasks = (_make_task(rectangle, sets) for rectangle in rectangles)
    shared = (source, *(parts.shared for parts in sets), make, function, whitenings)
    lost = LostGradients()
    bar = tqdm(total=samples * others, disable=not verbose, unit="pair", unit_scale=True)
    with bar, contextlib.closing(run_tasks(_reduce_rectangle, shared, tasks, jobs)) as reports:
        for rectangle, report in zip(rectangles, reports, strict=True):
            for part in report.result:
                result.merge(part)
            if rectangle.counted:
                lost.add(report.lost_gradients)
            bar.update(rectangle.pairs)
    report_lost_gradients(lost)
    return result


@dataclass(frozen=True)
class Rectangle:
    """Pairs of a slice of rows and a slice of columns, for one worker.

    Attributes
    ----------
    rows, columns : slice
        The rows and the columns.
    within : bool
        Whether the columns are the rows, so that the pair (x', x) follows from (x, x').
    mirrored : bool
        Whether the worker also returns the result for the pairs (x', x), which are in no rectangle.
    counted : bool
        Whether lost gradients of this rectangle are reported; each row is in one counted rectangle.
    """

    rows: slice
    columns: slice
    within: bool = False
    mirrored: bool = False
    counted: bool = True

    @property
    def pairs(self) -> int:
        """Number of pairs, with the mirrored ones."""
        rows, columns = self.rows, self.columns
        return (1 + self.mirrored) * (rows.stop - rows.start) * (columns.stop - columns.start)


def _make_rectangles(samples: int, others: int, jobs: int, symmetric: bool) -> list[Rectangle]:
    """Return rectangles of about equal work that cover all pairs.

    The Jacobians of the rows and columns are computed for each rectangle, so rectangles are few.
    """
    if symmetric:
        parts = list(enumerate(split_evenly(samples, jobs + 1)))
        # Rectangles on the diagonal, i = j, contain each sample once; those above it are mirrored.
        return [
            Rectangle(rows, columns, i == j, i != j, i == j)
            for i, rows in parts
            for j, columns in parts[i:]
        ]
    if samples >= others:
        return [Rectangle(rows, slice(0, others)) for rows in split_evenly(samples, jobs)]
    columns = enumerate(split_evenly(others, jobs))
    return [Rectangle(slice(0, samples), part, counted=index == 0) for index, part in columns]


def _make_task(rectangle: Rectangle, sets: tuple[Parts, Parts]) -> tuple[Any, ...]:
    """Return what a worker needs for a rectangle: the rectangle and its samples."""
    slices = (rectangle.rows, rectangle.columns)
    parts = [samples.part(piece) for samples, piece in zip(sets, slices, strict=True)]
    return rectangle, *parts


def _reduce_rectangle(
    source: Source,
    X: Samples,
    Y: Any,
    make: Callable[[slice, slice], Any],
    function: Callable[[Chunk, Chunk], Tensor],
    whitenings: tuple[str, str],
    rectangle: Rectangle,
    rows: Any,
    columns: Any,
) -> list[Any]:
    """Return the reduction of a rectangle, and that of its mirror image if it is mirrored."""
    sets = (resolve_part(rows, X), None if rectangle.within else resolve_part(columns, Y))
    results = [make(rectangle.rows, rectangle.columns)]
    if rectangle.mirrored:
        results.append(make(rectangle.columns, rectangle.rows))
    for first, second, values in iterate_pair_values(source, *sets, whitenings, function):
        tile = _shift(first, rectangle.rows.start), _shift(second, rectangle.columns.start)
        results[0].add(*tile, values)
        if rectangle.mirrored:
            results[1].add(*tile[::-1], mirror(values))
    return results


def _shift(part: slice, start: int) -> slice:
    """Return the slice of the whole for a slice of a part that begins at ``start``."""
    return slice(part.start + start, part.stop + start)


class _Matrix:
    """Reduction that keeps all values in one array.

    Attributes
    ----------
    values : ndarray of shape (n, m, ...), float64, or None
        The values; None until the first tile is added.
    """

    def __init__(self, rows: slice, columns: slice):
        self.rows, self.columns = rows, columns
        self.values: np.ndarray | None = None

    def add(self, rows: slice, columns: slice, values: Tensor) -> None:
        """Copy the values of a tile to their place."""
        place = relative_slice(rows, self.rows), relative_slice(columns, self.columns)
        # torch copies the values, because numpy copies a transposed array slowly.
        torch.from_numpy(self._get_array(values.shape[2:]))[place] = values.cpu()

    def merge(self, other: _Matrix) -> None:
        """Copy the values of some of the pairs to their place."""
        assert other.values is not None
        self.add(other.rows, other.columns, torch.from_numpy(other.values))

    def _get_array(self, more: Sequence[int]) -> np.ndarray:
        """Return the array of the values, which the first call allocates."""
        if self.values is None:
            shape = (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start)
            self.values = allocate("Values", (*shape, *more), np.dtype(np.float64), _FEWER_SAMPLES)
        return self.values


def compute_pair_matrix(
    source: Source,
    X: Samples,
    Y: Any,
    whitenings: tuple[str, str],
    function: Callable[[Chunk, Chunk], Tensor],
    verbose: Any = 0,
) -> np.ndarray:
    """Return the values of a function of all pairs, of shape (n, m, ...), float64."""
    matrix = reduce_pairs(source, X, Y, _Matrix, function, whitenings, verbose)
    values: np.ndarray = matrix.values
    return values


def gram_matrix(
    source: Source,
    X: Samples,
    Y: Samples | None = None,
    verbose: Any = 0,
) -> np.ndarray:
    """Return k^C of all pairs, of shape (n, m), float64, in [-1, 1]."""
    return compute_pair_matrix(source, X, Y, UNIT_WHITENINGS, Chunk.cosines, verbose)
