"""What is made of all pairs of samples: block by block in workers, tile by tile within a block.

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
from .pairs import NO_LABELS, UNIT_WHITENINGS, iterate_pair_values, mirror
from .parallel import (
    Parts,
    count_workers,
    relative_slice,
    run_tasks,
    slice_labels,
    slice_part,
    split_evenly,
)
from .zero_gradients import ZeroGradients, report_zero_gradients

_FEWER_ROWS = (
    "hand over fewer rows at a time, or use NetworkDensity or NetworkNeighbors, which hold no such"
    " matrix"
)


class Reduction(Protocol):
    """What is made of the values of all pairs of some rows and some columns."""

    def add(self, rows: slice, columns: slice, found: Tensor) -> None:
        """Take the values of a tile."""

    def merge(self, other: Any) -> None:
        """Take what was made of some of the pairs."""


def reduce_pairs(
    source: Source,
    X: Samples,
    Y: Any,
    make: Callable[[slice, slice], Any],
    function: Callable[[Chunk, Chunk], Tensor],
    whitenings: tuple[str, str] = UNIT_WHITENINGS,
    verbose: Any = 0,
    labels: tuple[Any, Any] = NO_LABELS,
) -> Any:
    """A `Reduction` of the `values` of all pairs, by all workers.

    ``make`` gives one for the rows and columns of two slices.
    """
    samples, others = len(X), len(X if Y is None else Y)
    result = make(slice(0, samples), slice(0, others))
    jobs = count_workers(source)
    if jobs == 1:
        for tile in iterate_pair_values(source, X, Y, whitenings, function, verbose, labels):
            result.add(*tile)
        return result
    blocks = _make_blocks(samples, others, jobs, Y is None and whitenings[0] == whitenings[1])
    sets = Parts(X, True), Parts(X if Y is None else Y, True)
    for rows in (X,) if Y is None else (X, Y):
        source.check_rows_independent(rows)
    tasks = (_task(block, sets, labels) for block in blocks)
    shared = (source, *(parts.shared for parts in sets), make, function, whitenings)
    zeros = ZeroGradients()
    bar = tqdm(total=samples * others, disable=not verbose, unit="pair", unit_scale=True)
    with bar, contextlib.closing(run_tasks(_reduce_block, shared, tasks, jobs)) as reports:
        for block, report in zip(blocks, reports, strict=True):
            for part in report.result:
                result.merge(part)
            if block.counted:
                zeros.add(report.zeros)
            bar.update(block.pairs)
    report_zero_gradients(zeros)
    return result


@dataclass(frozen=True)
class PairBlock:
    """Pairs of some rows and some columns, for a worker.

    Attributes
    ----------
    rows, columns : slice
        Which.
    within : bool
        Whether these are the same, and each pair is in it once.
    mirrored : bool
        Whether the pairs of the columns and the rows are to be made too.
    counted : bool
        Whether its rows are in no other block that is counted.
    """

    rows: slice
    columns: slice
    within: bool = False
    mirrored: bool = False
    counted: bool = True

    @property
    def pairs(self) -> int:
        """Their number."""
        rows, columns = self.rows, self.columns
        return (1 + self.mirrored) * (rows.stop - rows.start) * (columns.stop - columns.start)


def _make_blocks(samples: int, others: int, jobs: int, symmetric: bool) -> list[PairBlock]:
    """Of about as much work each; Jacobians are made again in each block that they are in."""
    if symmetric:
        parts = list(enumerate(split_evenly(samples, jobs + 1)))
        return [
            PairBlock(rows, columns, i == j, i != j, i == j)
            for i, rows in parts
            for j, columns in parts[i:]
        ]
    if samples >= others:
        return [PairBlock(rows, slice(0, others)) for rows in split_evenly(samples, jobs)]
    columns = enumerate(split_evenly(others, jobs))
    return [PairBlock(slice(0, samples), part, counted=index == 0) for index, part in columns]


def _task(block: PairBlock, sets: tuple[Parts, Parts], labels: tuple[Any, Any]) -> tuple[Any, ...]:
    slices = (block.rows, block.columns)
    parts = [rows.part(piece) for rows, piece in zip(sets, slices, strict=True)]
    # Where X is compared with itself, it has one set of labels.
    found = [slice_labels(y, piece) for y, piece in zip(labels, slices, strict=True)]
    return block, *parts, tuple(found)


def _reduce_block(
    source: Source,
    X: Samples,
    Y: Any,
    make: Callable[[slice, slice], Any],
    function: Callable[[Chunk, Chunk], Tensor],
    whitenings: tuple[str, str],
    block: PairBlock,
    rows: Any,
    columns: Any,
    labels: tuple[Any, Any],
) -> list[Any]:
    """The reduction of a block, and that of its mirror image."""
    sets = (slice_part(rows, X), None if block.within else slice_part(columns, Y))
    results = [make(block.rows, block.columns)]
    if block.mirrored:
        results.append(make(block.columns, block.rows))
    for at, to, found in iterate_pair_values(source, *sets, whitenings, function, 0, labels):
        places = _shifted(at, block.rows), _shifted(to, block.columns)
        results[0].add(*places, found)
        if block.mirrored:
            results[1].add(*places[::-1], mirror(found))
    return results


def _shifted(part: slice, whole: slice) -> slice:
    return slice(part.start + whole.start, part.stop + whole.start)


class _Matrix:
    """Values as they are."""

    def __init__(self, rows: slice, columns: slice):
        self.rows, self.columns = rows, columns
        self.values: np.ndarray | None = None

    def add(self, rows: slice, columns: slice, found: Tensor) -> None:
        # By torch, for numpy is slow to copy what is transposed.
        at = relative_slice(rows, self.rows), relative_slice(columns, self.columns)
        torch.from_numpy(self._filled(found.shape[2:]))[at] = found.cpu()

    def merge(self, other: _Matrix) -> None:
        assert other.values is not None
        self.add(other.rows, other.columns, torch.from_numpy(other.values))

    def _filled(self, more: Sequence[int]) -> np.ndarray:
        if self.values is None:
            shape = (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start)
            self.values = allocate("Values", (*shape, *more), np.dtype(np.float64), _FEWER_ROWS)
        return self.values


def compute_pair_matrix(
    source: Source,
    X: Samples,
    Y: Any,
    whitenings: tuple[str, str],
    function: Callable[[Chunk, Chunk], Tensor],
    verbose: Any = 0,
    labels: tuple[Any, Any] = NO_LABELS,
) -> np.ndarray:
    """One array of shape (n, m, ...) of a function of pairs."""
    result = reduce_pairs(source, X, Y, _Matrix, function, whitenings, verbose, labels)
    found: np.ndarray = result.values
    return found


def gram_matrix(
    source: Source,
    X: Samples,
    Y: Samples | None = None,
    verbose: Any = 0,
    labels: tuple[Any, Any] = NO_LABELS,
) -> np.ndarray:
    """k^C of all pairs, of shape (n, m), float64."""
    return compute_pair_matrix(source, X, Y, UNIT_WHITENINGS, Chunk.cosines, verbose, labels)
