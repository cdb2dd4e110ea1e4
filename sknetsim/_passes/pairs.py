"""Pairs of samples in tiles, within the memory budget: nothing is computed twice that fits.

Index legend: n, m samples; o, p outputs of the network (d of them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .._kernels.jacobian import concatenate_jacobians
from .._networks.memory import memory_budget
from .._networks.samples import Samples
from .chunks import Chunk, Source, iterate_chunks

# Rows of a tile: larger ones leave the caches, smaller ones waste the matrix product.
_TILE_ROWS = 640

UNIT_WHITENINGS = ("unit", "unit")

NO_LABELS = (None, None)


def make_tiles(found: Iterable[Chunk]) -> Iterator[Chunk]:
    """Whitened chunks, cut or joined to the size at which products are fast."""
    waiting: list[Chunk] = []
    for chunk in found:
        limit = _tile_rows(chunk)
        for part in chunk.split(limit):
            if sum(len(other.rank) for other in waiting) + len(part.rank) > limit:
                yield _joined(waiting)
                waiting = []
            waiting.append(prepare_for_pairs(part))
    yield _joined(waiting)


def _tile_rows(chunk: Chunk) -> int:
    """So that a tile's blocks, and its d x d kernels in float64, take a part of the budget."""
    outputs = chunk.jacobian.outputs.shape[1]
    row = chunk.jacobian.rows(slice(0, 1)).for_pairs().nbytes
    kernels = math.isqrt(memory_budget() // (64 * outputs**2))
    return max(1, min(_TILE_ROWS, kernels, memory_budget() // (12 * max(1, row))))


def prepare_for_pairs(chunk: Chunk) -> Chunk:
    """Whitened, and in the form that is cheaper for grams."""
    whitened = chunk.whitened()
    return replace(whitened, jacobian=whitened.jacobian.for_pairs())


def _joined(parts: list[Chunk]) -> Chunk:
    jacobian = concatenate_jacobians([part.jacobian for part in parts])
    kernel, root, rank = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("self_kernel", "root", "rank")
    )
    rows = slice(parts[0].rows.start, parts[-1].rows.stop)
    return Chunk(rows, jacobian, kernel, root, rank, None)


def group_tiles(found: Iterator[Chunk]) -> Iterator[list[Chunk]]:
    """Lists of tiles whose blocks stay within three eighths of the memory budget."""
    held: list[Chunk] = []
    for tile in found:
        if held and not _holds(held, tile):
            yield held
            held = []
        held.append(tile)
    yield held


def _holds(held: list[Chunk], tile: Chunk) -> bool:
    taken = sum(chunk.jacobian.nbytes for chunk in held)
    return taken + tile.jacobian.nbytes <= 3 * memory_budget() // 8


def iterate_pairs(
    source: Source,
    X: Samples,
    Y: Samples | None = None,
    whitenings: tuple[str, str] = UNIT_WHITENINGS,
    verbose: Any = 0,
    labels: tuple[Any, Any] = NO_LABELS,
) -> Iterator[tuple[Chunk, Chunk]]:
    """Tiles of X with tiles of Y, each pair once; without Y, each pair of tiles of X once."""
    samples, others = len(X), len(X if Y is None else Y)
    if Y is None and whitenings[0] == whitenings[1]:
        found, total = _within(source, X, whitenings[0], labels[0]), samples * (samples + 1) // 2
    else:
        sets = (X, X if Y is None else Y)
        found, total = _between(source, sets, whitenings, labels), samples * others
    with tqdm(total=total, disable=not verbose, unit="pair", unit_scale=True) as progress:
        for rows, columns in found:
            yield rows, columns
            progress.update(_count(rows, columns, Y is None))


def _count(rows: Chunk, columns: Chunk, symmetric: bool) -> int:
    if rows is columns and symmetric:
        return len(rows.rank) * (len(rows.rank) + 1) // 2
    return len(rows.rank) * len(columns.rank)


def _within(source: Source, X: Samples, whitening: str, y: Any) -> Iterator[tuple[Chunk, Chunk]]:
    """A piece is filled while its own pairs are made; what follows is compared with it."""
    start, samples = 0, len(X)
    while start < samples:
        held: list[Chunk] = []
        full, stop = False, start
        for tile in make_tiles(iterate_chunks(source, X, whitening, y, start, counted=start == 0)):
            full = full or bool(held and not _holds(held, tile))
            if not full:
                held.append(tile)
                stop = tile.rows.stop
            yield from ((other, tile) for other in held)
        start = stop


def _between(
    source: Source, sets: tuple[Any, Any], whitenings: tuple[str, str], labels: tuple[Any, Any]
) -> Iterator[tuple[Chunk, Chunk]]:
    """The smaller set is held, piece by piece, and the larger one gone through for each."""
    if len(sets[0]) > len(sets[1]):
        reversed_ = (sets[::-1], whitenings[::-1], labels[::-1])
        swapped = _held_and_streamed(source, *reversed_, counted=1)
        yield from ((rows, columns) for columns, rows in swapped)
    else:
        yield from _held_and_streamed(source, sets, whitenings, labels, counted=0)


def _held_and_streamed(
    source: Source,
    sets: tuple[Any, ...],
    whitenings: tuple[str, ...],
    labels: tuple[Any, ...],
    counted: int,
) -> Iterator[tuple[Chunk, Chunk]]:
    """Zero gradients are reported for one of the sets, once."""
    first = iterate_chunks(source, sets[0], whitenings[0], labels[0], counted=counted == 0)
    for number, piece in enumerate(group_tiles(make_tiles(first))):
        reported = counted == 1 and number == 0
        streamed = iterate_chunks(source, sets[1], whitenings[1], labels[1], counted=reported)
        for tile in make_tiles(streamed):
            yield from ((held, tile) for held in piece)


def iterate_pair_values(
    source: Source,
    X: Samples,
    Y: Any,
    whitenings: tuple[str, str],
    function: Callable[[Chunk, Chunk], Tensor],
    verbose: Any = 0,
    labels: tuple[Any, Any] = NO_LABELS,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """A function of all pairs, tile by tile: rows, columns, values of shape (n, m, ...).

    Without Y the function of (x', x) must be that of (x, x'), transposed.
    """
    symmetric = Y is None and whitenings[0] == whitenings[1]
    for rows, columns in iterate_pairs(source, X, Y, whitenings, verbose, labels):
        found = function(rows, columns)
        yield rows.rows, columns.rows, found
        if symmetric and rows is not columns:
            yield columns.rows, rows.rows, mirror(found)


def mirror(found: Tensor) -> Tensor:
    """The function of (x', x) from that of (x, x')."""
    turned = found.transpose(0, 1)
    return turned.mT if turned.ndim == 4 else turned
