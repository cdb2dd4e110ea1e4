"""How a layer's parameters are laid out in its block, and the maps that follow that layout.

Index legend: o outputs of the network; r, c a parameter's first axis and its other axes, flattened;
w the block's parameters, flattened; f frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Names and shapes of the parameters whose gradients a block holds.
Layout = tuple[tuple[str, torch.Size], ...]


@dataclass(frozen=True)
class Order:
    """A weight's entries are held in ``shape``; moving its ``axes`` gives the layout's order."""

    shape: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()

    def to_layout(self, held: Tensor) -> Tensor:
        """(..., w) as held -> (..., w) as in the layout."""
        return _permuted(held, self.shape, self.axes)

    def from_layout(self, written: Tensor) -> Tensor:
        """(..., w) as in the layout -> (..., w) as held."""
        shape = tuple(self.shape[axis] for axis in self.axes)
        return _permuted(written, shape, tuple(self.axes.index(a) for a in range(len(self.axes))))

    @property
    def keeps_rows(self) -> bool:
        """Whether a row of the layout (an index of its first axis) is one as held."""
        return not self.axes or self.axes[:2] == (0, 1)

    def of_columns(self) -> Order:
        """The order of a row's columns, where rows are kept."""
        return Order(self.shape[2:], tuple(axis - 2 for axis in self.axes[2:]))

    def columns(self, held: Tensor) -> Tensor:
        """(c, ...) for a row's columns as in the layout -> as held, where rows are kept."""
        if not self.axes:
            return held
        shape = tuple(self.shape[axis] for axis in self.axes[2:])
        axes = tuple(self.axes.index(axis) - 2 for axis in range(2, len(self.axes)))
        return held.unflatten(0, shape).permute(*axes, len(axes)).flatten(0, -2)


#: As in the layout.
PLAIN_ORDER = Order()


@dataclass(frozen=True)
class FourierMap:
    """A tensor sketch of a parameter, as its Fourier transforms: signed hashes become phases.

    Complex tensors of f frequencies for the outputs (o, f), for the first axis of the parameter
    (r, f) and for its other axes, flattened (c, f); their products are the transformed map.
    """

    outputs: Tensor
    rows: Tensor
    columns: Tensor


def multiply_complex(vectors: Tensor, phases: Tensor) -> Tensor:
    """(..., a) real times (a, f) complex, in real arithmetic."""
    product = vectors @ torch.view_as_real(phases).flatten(1).to(vectors)
    return torch.view_as_complex(product.unflatten(-1, (-1, 2)))


def _permuted(vectors: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    if not axes:
        return vectors
    first = vectors.ndim - 1
    moved = vectors.unflatten(-1, shape).permute(*range(first), *(first + axis for axis in axes))
    return moved.flatten(first)


def longest_axis(layout: Layout) -> int:
    """The most rows of a parameter; a scalar has one."""
    return max((shape[0] for _, shape in layout if len(shape)), default=1)
