"""Cells of recurrent layers: one time step forward, and one backward.

All operations are elementwise, so that they apply to one time step and to all of them at once. The
sums of the hidden side are s = W h + b. An LSTM and a plain RNN add the input's side to them.

Index legend: o outputs of the network; n samples; h units; g gates times units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


class Cell(ABC):
    """A step of a recurrent layer, and its derivatives."""

    #: Whether ``advance`` requires sums that contain the input's side.
    adds_inputs = True

    @abstractmethod
    def advance(
        self, inputs: Tensor, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensors, Tensors]:
        """Return the next states (n, h), and the gates that ``compute_slopes`` requires."""

    @abstractmethod
    def compute_slopes(self, gates: Sequence[Tensor], states: Sequence[Tensor]) -> Tensors:
        """Return the derivatives of a step, from its gates and the states before it."""

    @abstractmethod
    def retreat(
        self, cotangents: Sequence[Tensor], slopes: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensors]:
        """Return the cotangents before a step, from those (o, n, h) of the states after it.

        Returns
        -------
        deltas : Tensor
            Cotangents at both sides, for ``split``.
        delta : Tensor of shape (o, n, g)
            Cotangent at the sums of the hidden side.
        direct : Tensor or None
            Cotangent of h that does not pass through the sums, or None if it is zero.
        others : tuple of Tensor
            Cotangents of the other states.
        """

    def split(self, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cotangents at the input's side and at the hidden side."""
        return deltas, deltas


class RNN(Cell):
    """A plain RNN: h' = tanh(s) or h' = relu(s)."""

    def __init__(self, nonlinearity: Callable[[Tensor], Tensor]) -> None:
        self.nonlinearity = nonlinearity

    def advance(
        self, inputs: Tensor, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensors, Tensors]:
        hidden = self.nonlinearity(sums)
        return (hidden,), (hidden,)

    def compute_slopes(self, gates: Sequence[Tensor], states: Sequence[Tensor]) -> Tensors:
        (hidden,) = gates
        if self.nonlinearity is torch.tanh:
            return (1 - hidden.square(),)
        return ((hidden > 0).to(hidden.dtype),)

    def retreat(
        self, cotangents: Sequence[Tensor], slopes: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensors]:
        delta = cotangents[0] * slopes[0]
        return delta, delta, None, ()


class LSTM(Cell):
    """An LSTM: c' = f c + i u and h' = o tanh(c'), with gates in the order i, f, u, o."""

    def advance(
        self, inputs: Tensor, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensors, Tensors]:
        i, f, _, o = sums.sigmoid().chunk(4, -1)
        u = sums.chunk(4, -1)[2].tanh()
        c = torch.addcmul(f * states[1], i, u)
        squashed = c.tanh()
        return (o * squashed, c), (i, f, u, o, squashed)

    def compute_slopes(self, gates: Sequence[Tensor], states: Sequence[Tensor]) -> Tensors:
        i, f, u, o, squashed = gates
        through = o * (1 - squashed.square())  # dh'/dc'
        output = squashed * o * (1 - o)  # dh'/ds_o
        # dc'/ds_i, dc'/ds_f, dc'/ds_u, dc'/dc
        blocks = (u * i * (1 - i), states[1] * f * (1 - f), i * (1 - u.square()), f)
        return through, output, torch.stack(blocks, -2)

    def retreat(
        self, cotangents: Sequence[Tensor], slopes: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensors]:
        (dh, dc), (through, output, blocks) = cotangents, slopes
        products = torch.addcmul(dc, dh, through).unsqueeze(-2) * blocks
        delta = torch.cat([products[..., :3, :].flatten(-2), dh * output], -1)
        return delta, delta, None, (products[..., 3, :],)


class GRU(Cell):
    """A GRU: h' = n + z (h - n) with n = tanh(x_n + r s_n), with gates in the order r, z, n."""

    adds_inputs = False

    def advance(
        self, inputs: Tensor, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensors, Tensors]:
        split = 2 * states[0].shape[-1]
        r, z = (inputs[..., :split] + sums[..., :split]).sigmoid().chunk(2, -1)
        hidden = sums[..., split:]
        n = torch.addcmul(inputs[..., split:], r, hidden).tanh()
        return (torch.addcmul(n, z, states[0] - n),), (r, z, n, hidden)

    def compute_slopes(self, gates: Sequence[Tensor], states: Sequence[Tensor]) -> Tensors:
        r, z, n, hidden = gates
        slope = (1 - z) * (1 - n.square())  # dh'/dx_n
        reset, update = slope * hidden * r * (1 - r), (states[0] - n) * z * (1 - z)
        # dh'/ds_r, dh'/ds_z, dh'/ds_n, dh'/dx_n, dh'/dh
        return (torch.stack((reset, update, slope * r, slope, z), -2),)

    def retreat(
        self, cotangents: Sequence[Tensor], slopes: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensors]:
        products = cotangents[0].unsqueeze(-2) * slopes[0]
        return products, products[..., :3, :].flatten(-2), products[..., 4, :], ()

    def split(self, deltas: Tensor) -> tuple[Tensor, Tensor]:
        at_inputs = torch.cat([deltas[..., :2, :], deltas[..., 3:4, :]], -2)
        return at_inputs.flatten(-2), deltas[..., :3, :].flatten(-2)
