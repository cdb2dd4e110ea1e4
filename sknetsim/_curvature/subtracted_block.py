"""Block of features whose inner products are subtracted from those of other blocks.

Index legend: n, m samples; o, p outputs; q vectors; f features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from .._kernels.blocks import Block, DenseBlock
from .._kernels.layouts import FourierMap


@dataclass(frozen=True)
class SubtractedBlock(Block):
    """Features F of shape (n, o, f), with the inner products -<F, F'>.

    Beside blocks of gradients G, the inner products of a Jacobian are <G, G'> - <F, F'>. Such
    features are not gradients, so they cannot be written out.
    """

    features: Tensor

    def _as_dense(self) -> DenseBlock:
        return DenseBlock(self.layout, self.features)

    def materialize(self) -> NoReturn:
        raise NotImplementedError("subtracted features cannot be written out as gradients")

    def sketch(self, maps: Sequence[FourierMap]) -> NoReturn:
        raise NotImplementedError("subtracted features cannot be sketched")

    @property
    def sketched_vectors(self) -> int:
        return 0

    def whiten(self, root: Tensor) -> SubtractedBlock:
        return replace(self, features=torch.bmm(root.to(self.features), self.features))

    def self_kernel(self) -> Tensor:
        return -self._as_dense().self_kernel()

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        # The sum is a vector of features; its sign changes in products with other features.
        return self._as_dense().weighted_sum(weights)

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        return -self._as_dense().inner(vectors)

    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        return -self._as_dense().product(vectors)

    def _gram(self, other: Any) -> Tensor:
        return -self._as_dense().gram(other._as_dense())

    def _trace_gram(self, other: Any) -> Tensor:
        return -self._as_dense().trace_gram(other._as_dense())

    def _paired(self, other: Any) -> Tensor:
        return -self._as_dense().paired(other._as_dense())

    def _marginals(self, other: Any, by_rows: Sequence[bool]) -> list[Tensor]:
        return [-part for part in self._as_dense().marginals(other._as_dense(), by_rows)]

    def _concatenate(self, blocks: Sequence[SubtractedBlock]) -> SubtractedBlock:
        return replace(self, features=torch.cat([block.features for block in blocks]))

    def _add(self, blocks: Sequence[SubtractedBlock]) -> SubtractedBlock:
        return replace(self, features=torch.stack([b.features for b in blocks]).sum(dim=0))
