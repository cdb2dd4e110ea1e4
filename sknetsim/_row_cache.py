"""Jacobians of single rows, for those who ask for one pair of rows at a time."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from . import _memory, _pairs, _passes
from ._inputs import Rows
from ._passes import Chunk, Source


class RowCache:
    """Whitened Jacobians of rows by their bytes; where memory is short the oldest go first.

    Parameters
    ----------
    source : Source
        What gives Jacobians.
    whitening : str
        One of `_kernels.WHITENINGS`.
    """

    def __init__(self, source: Source, whitening: str):
        self.source = source
        self.whitening = whitening
        self._chunks: OrderedDict[bytes, Chunk] = OrderedDict()
        self._bytes = 0

    def chunk(self, row: Any) -> Chunk:
        """The Jacobian of one row, of shape (1, ...)."""
        # In double, for what a Pipeline does to a row comes before it is cast.
        key = Rows(row).digests(torch.float64)[0]
        if key not in self._chunks:
            found = next(iter(_passes.chunks(self.source, row, self.whitening)))
            self._keep(key, _pairs.for_pairs(found))
        return self._chunks[key]

    def _keep(self, key: bytes, chunk: Chunk) -> None:
        self._chunks[key] = chunk
        self._bytes += chunk.jacobian.nbytes
        while self._bytes > _memory.budget() // 2 and len(self._chunks) > 2:
            self._bytes -= self._chunks.popitem(last=False)[1].jacobian.nbytes
