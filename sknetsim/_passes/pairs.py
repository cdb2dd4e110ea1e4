"""Pairs of samples, tile by tile, within the memory budget.

A tile is a chunk of whitened Jacobians, of a size at which matrix products are fast. As many tiles
of one set as fit are held in memory, while the tiles of the other set are computed one by one. If
one set fits, the Jacobians of both sets are computed once. If not, there is one pass over the other
set for each group of tiles that fits, and at any time only one chunk is in memory.

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
from .._networks.memory import HELD_TILES, TILE, TILE_KERNELS, memory_budget
from .._networks.samples import Samples
from .chunks import Chunk, Source, iterate_chunks
from .lost_gradients import LostGradients, report_lost_gradients

# Samples of a tile. Larger tiles leave the caches, smaller ones waste the matrix product.
_TILE_SAMPLES = 640

#: Whitenings of both sets for k^C.
UNIT_WHITENINGS = ("unit", "unit")


def make_tiles(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield tiles: whitened chunks, split or concatenated to the size of a tile."""
    parts: list[Chunk] = []
    for chunk in chunks:
        limit = _count_tile_samples(chunk)
        for part in chunk.split(limit):
            if sum(len(other.rank) for other in parts) + len(part.rank) > limit:
                yield _concatenate(parts)
                parts = []
            parts.append(prepare_for_pairs(part))
    yield _concatenate(parts)


def _count_tile_samples(chunk: Chunk) -> int:
    """Return the largest number of samples in a tile, from the shares of the memory budget."""
    outputs = chunk.jacobian.outputs.shape[1]
    sample_bytes = chunk.jacobian.rows(slice(0, 1)).for_pairs().nbytes
    device = chunk.jacobian.outputs.device
    # Two tiles of n samples have n^2 kernels of d x d numbers, 8 bytes each.
    by_kernels = math.isqrt(memory_budget(TILE_KERNELS, device) // (8 * outputs**2))
    by_blocks = memory_budget(TILE, device) // max(1, sample_bytes)
    return max(1, min(_TILE_SAMPLES, by_kernels, by_blocks))


def prepare_for_pairs(chunk: Chunk) -> Chunk:
    """Return the whitened chunk, in the form that is cheaper for gram matrices."""
    whitened = chunk.whitened()
    return replace(whitened, jacobian=whitened.jacobian.for_pairs())


def _concatenate(parts: list[Chunk]) -> Chunk:
    """Return one chunk of the samples of consecutive whitened chunks."""
    jacobian = concatenate_jacobians([part.jacobian for part in parts])
    rank, dropped = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("rank", "dropped")
    )
    roots = [part.root for part in parts if part.root is not None]
    root = torch.cat(roots) if roots else None
    rows = slice(parts[0].rows.start, parts[-1].rows.stop)
    return Chunk(rows, jacobian, None, root, rank, dropped, None)


def take_tiles(tiles: Iterator[Chunk]) -> list[Chunk]:
    """Return the first tile, and as many of the next ones as can be held beside it."""
    held: list[Chunk] = []
    for tile in tiles:
        if not _fits(held, tile):
            break
        held.append(tile)
    return held


def _fits(held: list[Chunk], tile: Chunk) -> bool:
    """Return whether a tile can be held beside others within `HELD_TILES` of the memory budget.

    The first tile can always be held.
    """
    needed = sum(other.nbytes for other in (*held, tile))
    device = tile.jacobian.outputs.device
    return not held or needed <= memory_budget(HELD_TILES, device, allocated=needed)


def iterate_pairs(
    source: Source,
    X: Samples,
    Y: Samples | None = None,
    whitenings: tuple[str, str] = UNIT_WHITENINGS,
    verbose: Any = 0,
) -> Iterator[tuple[Chunk, Chunk]]:
    """Yield each pair of a tile of X and a tile of Y once.

    Without Y, the tiles of X are paired with each other. If both whitenings are the same, only one
    of the pairs of tiles (a, b) and (b, a) is yielded.
    """
    samples, others = len(X), len(X if Y is None else Y)
    if Y is None and whitenings[0] == whitenings[1]:
        pairs = _iterate_within(source, X, whitenings[0])
        total = samples * (samples + 1) // 2
    else:
        sets = (X, X if Y is None else Y)
        pairs, total = _iterate_between(source, sets, whitenings), samples * others
    with tqdm(total=total, disable=not verbose, unit="pair", unit_scale=True) as progress:
        for first, second in pairs:
            yield first, second
            progress.update(_count_pairs(first, second, Y is None))


def _count_pairs(first: Chunk, second: Chunk, symmetric: bool) -> int:
    """Return the number of pairs of two tiles, without (x', x) if a tile is paired with itself."""
    if first is second and symmetric:
        return len(first.rank) * (len(first.rank) + 1) // 2
    return len(first.rank) * len(second.rank)


def _iterate_within(source: Source, X: Samples, whitening: str) -> Iterator[tuple[Chunk, Chunk]]:
    """Yield each pair of tiles of one set once, in as many passes as the budget needs.

    A pass holds tiles from ``start`` on until their share of the budget is full. It pairs each tile
    from ``start`` to the end with all tiles held so far. The next pass starts after the last tile
    that was held.
    """
    start, samples = 0, len(X)
    while start < samples:
        held: list[Chunk] = []
        full, stop = False, start
        for tile in make_tiles(iterate_chunks(source, X, whitening, start, counted=start == 0)):
            full = full or not _fits(held, tile)
            if not full:
                held.append(tile)
                stop = tile.rows.stop
            yield from ((other, tile) for other in held)
        start = stop


def _iterate_between(
    source: Source, sets: tuple[Any, Any], whitenings: tuple[str, str]
) -> Iterator[tuple[Chunk, Chunk]]:
    """Yield each pair of tiles of two sets, where the tiles of the smaller set are held."""
    if len(sets[0]) > len(sets[1]):
        swapped = (sets[::-1], whitenings[::-1])
        pairs = _hold_first_set(source, *swapped, counted=1)
        yield from ((first, second) for second, first in pairs)
    else:
        yield from _hold_first_set(source, sets, whitenings, counted=0)


def _hold_first_set(
    source: Source,
    sets: tuple[Any, ...],
    whitenings: tuple[str, ...],
    counted: int,
) -> Iterator[tuple[Chunk, Chunk]]:
    """Yield each pair of tiles, with one pass over the second set for each group of the first.

    The next group is computed from the end of the last one on, so that the chunk of its tiles is
    not in memory during that pass. Lost gradients are reported once, for the set with the index
    ``counted``.
    """
    lost, start = LostGradients(), 0
    while start < len(sets[0]):
        held = take_tiles(make_tiles(iterate_chunks(source, sets[0], whitenings[0], start, False)))
        for tile in held:
            lost.add(tile.count_lost_gradients())
        reported = counted == 1 and start == 0
        others = iterate_chunks(source, sets[1], whitenings[1], counted=reported)
        for tile in make_tiles(others):
            yield from ((other, tile) for other in held)
        start = held[-1].rows.stop
        # The group is freed before the next one is computed.
        held.clear()
    if counted == 0:
        report_lost_gradients(lost)


def iterate_pair_values(
    source: Source,
    X: Samples,
    Y: Any,
    whitenings: tuple[str, str],
    function: Callable[[Chunk, Chunk], Tensor],
    verbose: Any = 0,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows, columns and values of a function of all pairs, tile by tile.

    The values have the shape (n, m, ...). If Y is None and both whitenings are the same, the values
    of (x', x) are computed from the values of (x, x') by `mirror`, so the function must be
    symmetric in this sense.
    """
    symmetric = Y is None and whitenings[0] == whitenings[1]
    for first, second in iterate_pairs(source, X, Y, whitenings, verbose):
        values = function(first, second)
        yield first.rows, second.rows, values
        if symmetric and first is not second:
            yield second.rows, first.rows, mirror(values)


def mirror(values: Tensor) -> Tensor:
    """Return the values of the pairs (x', x), of shape (m, n, ...), from the values of (x, x').

    K(x', x) = K(x, x')^T: the two axes of the pairs are exchanged, and the two of d x d kernels.
    """
    mirrored = values.transpose(0, 1)
    return mirrored.mT if mirrored.ndim == 4 else mirrored
