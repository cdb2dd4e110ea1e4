"""Jacobians of single rows, for those who ask for one pair of rows at a time."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from . import _memory, _pairs, _passes
from ._inputs import Rows
from ._passes import Chunk, Source


class RowCache:
    """Whitened Jacobians of rows by their bytes; where memory is short the oldest go first.

    Parameters
    ----------
    source : Source
        What gives Jacobians.
    module : Module or None
        The network, whose bytes must stay what they are now.
    whitening : str
        One of `_kernels.WHITENINGS`.
    """

    def __init__(self, source: Source, module: nn.Module | None, whitening: str):
        self.source = source
        self.whitening = whitening
        self._tensors = _tensors(module)
        self._seen = [tensor.clone() for tensor in self._tensors]
        self._chunks: OrderedDict[bytes, Chunk] = OrderedDict()
        self._bytes = 0

    def is_current(self) -> bool:
        """Whether the network is, to the byte, what it was."""
        return all(map(torch.equal, self._tensors, self._seen))

    def chunk(self, row: Any) -> Chunk:
        """The Jacobian of one row, of shape (1, ...)."""
        key = Rows(row).digests(self.source.dtype)[0]
        if key not in self._chunks:
            found = next(iter(_passes.chunks(self.source, row, self.whitening)))
            self._keep(key, _pairs.for_pairs(found))
        return self._chunks[key]

    def _keep(self, key: bytes, chunk: Chunk) -> None:
        self._chunks[key] = chunk
        self._bytes += chunk.jacobian.nbytes
        while self._bytes > _memory.budget() // 2 and len(self._chunks) > 2:
            self._bytes -= self._chunks.popitem(last=False)[1].jacobian.nbytes


def _tensors(module: nn.Module | None) -> list[Tensor]:
    return [] if module is None else [t.detach() for t in (*module.parameters(), *module.buffers())]
