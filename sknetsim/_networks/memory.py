"""What a pass takes in memory, against scikit-learn's ``working_memory``.

Index legend: n samples; d outputs of the network.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction

import numpy as np
import torch
from sklearn import get_config

from ..exceptions import is_out_of_memory

# Shares of the memory budget. `tests/passes/test_memory_shares.py` adds up those that are in use at
# the same time.

#: The Jacobians of a chunk, with everything that is needed to compute them.
CHUNK = Fraction(1, 4)

#: The tiles of one set that are held while the tiles of the other set pass.
HELD_TILES = Fraction(3, 8)

#: The blocks of one tile.
TILE = Fraction(1, 12)

#: The d x d kernels of all pairs of two tiles, in float64.
TILE_KERNELS = Fraction(1, 8)

#: The Fourier transforms of the factors of a chunk in a tensor sketch.
SKETCH = Fraction(1, 8)

#: The Jacobians that a kernel keeps when it is called with two single samples.
SINGLE_ROWS = Fraction(1, 2)


def memory_budget(share: Fraction = Fraction(1)) -> int:
    """Return a share of scikit-learn's ``working_memory``, in bytes."""
    megabytes = get_config()["working_memory"]
    if not megabytes > 0:
        raise ValueError(
            f"working_memory is {megabytes}; allowed are positive numbers of MiB: set it with"
            " sklearn.set_config(working_memory=1024)."
        )
    return int(megabytes * 2**20) * share.numerator // share.denominator


def keep_freed_pages() -> None:
    """Have the C library keep what chunks free, rather than take new pages for each of them.

    glibc keeps twice the largest block of at most 32 MiB that was ever freed; so one is, untouched.
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8)


def allocate(described: str, shape: tuple[int, ...], dtype: np.dtype, cure: str) -> np.ndarray:
    """An array to be filled; refused where this machine's memory cannot hold it."""
    needed = math.prod(shape) * dtype.itemsize
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise MemoryError(
            f"{described} of shape {tuple(shape)} take {needed / 2**30:,.1f} GiB; this machine has"
            f" {available / 2**30:,.1f} GiB: {cure}."
        )
    return np.empty(shape, dtype)


def check_within_budget(described: str, needed: int, cure: str) -> None:
    """Refuse what must be held at once and exceeds the budget."""
    if needed > memory_budget():
        raise MemoryError(
            f"{described} takes {needed / 2**20:,.0f} MiB; allowed are"
            f" {memory_budget() / 2**20:,.0f} MiB (scikit-learn's working_memory): {cure}, or raise"
            " working_memory."
        )


def halve(samples: int, error: Exception) -> int:
    """Half of a chunk for which memory did not suffice; any other error goes on."""
    if samples == 1 or not is_out_of_memory(error):
        raise error
    return samples // 2
