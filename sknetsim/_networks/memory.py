"""Memory budget, scikit-learn's ``working_memory``, and allocation within it.

Index legend: d outputs of the network.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction

import numpy as np
import torch
from sklearn import get_config

from ..exceptions import is_out_of_memory

# Shares of the memory budget. `tests/passes/test_memory_shares.py` checks that the shares that are
# in memory at the same time add up to at most 1.

#: The Jacobians of a chunk, and everything that is needed to compute them.
CHUNK = Fraction(1, 4)

#: The tiles of one set that are held while the tiles of the other set are computed.
HELD_TILES = Fraction(1, 3)

#: The blocks of one tile.
TILE = Fraction(1, 12)

#: The d x d kernels of all pairs of two tiles, in float64.
TILE_KERNELS = Fraction(1, 12)

#: The weighted sums of the Jacobians of all samples, beside a chunk.
SUMS = Fraction(3, 4)

#: The Fourier transforms of the factors of a chunk in a tensor sketch.
SKETCH = Fraction(1, 8)

#: The Jacobians that a kernel keeps when it is called with two single samples.
SINGLE_SAMPLES = Fraction(1, 2)

#: The share of the free memory of a CUDA device that a pass may take.
DEVICE_SHARE = Fraction(3, 4)


def memory_budget(
    share: Fraction = Fraction(1), device: torch.device | None = None, allocated: int = 0
) -> int:
    """Return a share of the memory that a pass may take, in bytes.

    On a CUDA device, a pass may take `DEVICE_SHARE` of the free memory; ``allocated`` bytes that it
    has already taken count as free. Elsewhere it may take scikit-learn's ``working_memory``.
    """
    if device is not None and device.type == "cuda":
        return int((_free_memory(device) + allocated) * DEVICE_SHARE * share)
    megabytes = get_config()["working_memory"]
    if not megabytes > 0:
        raise ValueError(
            f"`working_memory` of scikit-learn must be a positive number of MiB; got {megabytes}."
            " Call sklearn.set_config(working_memory=1024)."
        )
    return int(megabytes * 2**20) * share.numerator // share.denominator


def _free_memory(device: torch.device) -> int:
    """Return the number of free bytes on a CUDA device, with the unused part of torch's cache."""
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + unused)


def keep_freed_pages() -> None:
    """Make the C library keep the pages that a chunk frees for the next chunk.

    glibc keeps up to twice the size of the largest block of at most 32 MiB that was ever freed. So
    one block of nearly 32 MiB is allocated and freed here, without writing to it.
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8)


def allocate(described: str, shape: tuple[int, ...], dtype: np.dtype, cure: str) -> np.ndarray:
    """Return an array to be filled; raise an error if it exceeds the memory of this machine."""
    needed = math.prod(shape) * dtype.itemsize
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise MemoryError(
            f"{described} of shape {tuple(shape)} must fit into the memory of this machine,"
            f" {available / 2**30:,.1f} GiB; they take {needed / 2**30:,.1f} GiB. {cure}."
        )
    return np.empty(shape, dtype)


def check_within_budget(
    described: str,
    needed: int,
    cure: str,
    device: torch.device | None = None,
    share: Fraction = Fraction(1),
) -> None:
    """Raise an error if something that is held at once exceeds its share of the memory budget."""
    budget = memory_budget(share, device)
    if needed > budget:
        raise MemoryError(
            f"{described} must fit into {'' if share == 1 else f'{share} of '}"
            f"{describe_budget(device)}, {budget / 2**20:,.0f} MiB; it takes"
            f" {needed / 2**20:,.0f} MiB. {cure}."
        )


def describe_budget(device: torch.device | None) -> str:
    """Return a description of the memory budget, for an error message."""
    if device is not None and device.type == "cuda":
        return f"the share of the free memory of {str(device)!r} that a pass may take"
    return "scikit-learn's `working_memory`"


def halve(samples: int, error: Exception) -> int:
    """Return half the samples of a chunk that ran out of memory; raise any other error again."""
    if samples == 1 or not is_out_of_memory(error):
        raise error
    return samples // 2
