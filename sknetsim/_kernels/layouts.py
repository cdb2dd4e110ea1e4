"""Order of a layer's parameters in its block, and tensor-sketch maps in that order.

Index legend: o outputs of the network; r, c a parameter's first axis and its other axes, flattened;
w the block's parameters, flattened; f frequencies; a any axis that is summed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Names and shapes of the parameters whose gradients a block contains.
Layout = tuple[tuple[str, torch.Size], ...]


@dataclass(frozen=True)
class Order:
    """Order in which a block stores the entries of a weight.

    The stored array has the shape ``shape``. Permuting it to ``axes`` gives the order of the
    layout. Without ``axes``, both orders are the same.

    With a bias, each row of the stored array, of the channels (g, j), has one more element: that of
    the bias, which comes after the weight in the layout.
    """

    shape: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    has_bias: bool = False

    def to_layout(self, stored: Tensor) -> Tensor:
        """Return (..., w) in the layout's order, from (..., w) in stored order."""
        if not self.has_bias:
            return _permute(stored, self.shape, self.axes)
        rows = stored.unflatten(-1, (self._count_rows(), -1))
        weight = _permute(rows[..., :-1].flatten(-2), self.shape, self.axes)
        return torch.cat([weight, rows[..., -1]], dim=-1)

    def from_layout(self, written: Tensor) -> Tensor:
        """Return (..., w) in stored order, from (..., w) in the layout's order."""
        shape = tuple(self.shape[axis] for axis in self.axes)
        inverse = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        if not self.has_bias:
            return _permute(written, shape, inverse)
        count = self._count_rows()
        weight, bias = written[..., :-count], written[..., -count:]
        rows = _permute(weight, shape, inverse).unflatten(-1, (count, -1))
        return torch.cat([rows, bias[..., None]], dim=-1).flatten(-2)

    def with_bias(self, groups: int, out: int, width: int) -> Order:
        """Return the order of the same weight (g, j, i) stored with its bias."""
        return Order(self.shape or (groups, out, width), self.axes, True)

    def _count_rows(self) -> int:
        """Return the number of channels (g, j) of a weight with a bias."""
        return self.shape[0] * self.shape[1]

    @property
    def keeps_rows(self) -> bool:
        """True if rows r of the layout are in the same order in the stored array."""
        return not self.axes or self.axes[:2] == (0, 1)

    def column_order(self) -> Order:
        """Return the order of the columns c of one row, if `keeps_rows`."""
        return Order(self.shape[2:], tuple(axis - 2 for axis in self.axes[2:]))

    def columns_from_layout(self, written: Tensor) -> Tensor:
        """Return (c, f) in stored order, from (c, f) in the layout's order, if `keeps_rows`."""
        return self.column_order().from_layout(written.mT).mT if self.axes else written


#: The layout's own order.
PLAIN_ORDER = Order()


@dataclass(frozen=True)
class FourierMap:
    """Fourier transform of a parameter's tensor-sketch map: signed hashes become phases.

    The transformed map is S[f,o,r,c] = outputs[o,f] rows[r,f] columns[c,f]. Its factors are complex
    tensors of shape (o, f), (r, f) and (c, f), with f frequencies.
    """

    outputs: Tensor
    rows: Tensor
    columns: Tensor


def multiply_complex(vectors: Tensor, phases: Tensor) -> Tensor:
    """Return sum_a vectors[...,a] phases[a,f], for real vectors and complex phases.

    The product is computed in real arithmetic, on real and imaginary parts side by side.
    """
    product = vectors @ torch.view_as_real(phases).flatten(1).to(vectors)
    return torch.view_as_complex(product.unflatten(-1, (-1, 2)))


def longest_first_axis(layout: Layout) -> int:
    """Return the largest number of rows r among the parameters; a scalar has one row."""
    return max((shape[0] for _, shape in layout if len(shape)), default=1)


def _permute(vectors: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Return (..., w) with the last axis, read as an array of ``shape``, permuted to ``axes``."""
    if not axes:
        return vectors
    first = vectors.ndim - 1
    moved = vectors.unflatten(-1, shape).permute(*range(first), *(first + axis for axis in axes))
    return moved.flatten(first)
