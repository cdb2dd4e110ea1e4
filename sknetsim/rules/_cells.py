"""Cells of recurrent layers: one time step forward, and one backward.

All operations are elementwise, so that ``advance`` applies to one time step and to all of them at
once. The sums of the hidden side are s = W h + b. An LSTM and a plain RNN add the input's side x.

Index legend: o outputs of the network; n samples; h units; g gates times units; k blocks of h
units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Cotangents = tuple[Tensor, Tensor | None, Tensors]


class Cell(ABC):
    """A step of a recurrent layer, and its derivatives."""

    #: Whether the sums that ``advance`` takes contain the input's side.
    adds_inputs = True
    #: Number of blocks that ``advance`` returns as slopes.
    slopes: int
    #: Number of blocks of cotangents that ``retreat`` returns, those at the sums first.
    deltas: int

    @abstractmethod
    def advance(
        self, inputs: Tensor, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensors, Tensors]:
        """Return the next states (n, h), and the slopes, from which ``retreat`` computes."""

    @abstractmethod
    def retreat(
        self, cotangents: Sequence[Tensor], slopes: Tensor, out: Tensor | None
    ) -> Cotangents:
        """Return the cotangents before a step, from those (o, n, h) of the states after it.

        Returns
        -------
        deltas : Tensor of shape (o, n, k h)
            Cotangents at the sums, and what ``split`` requires in addition; in ``out`` if given.
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

    slopes, deltas = 1, 1

    def __init__(self, nonlinearity: Callable[[Tensor], Tensor]) -> None:
        self.nonlinearity = nonlinearity

    def advance(
        self, inputs: Tensor, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensors, Tensors]:
        hidden = self.nonlinearity(sums)
        if self.nonlinearity is torch.tanh:
            return (hidden,), (1 - hidden.square(),)
        return (hidden,), ((hidden > 0).to(hidden.dtype),)

    def retreat(
        self, cotangents: Sequence[Tensor], slopes: Tensor, out: Tensor | None
    ) -> Cotangents:
        return torch.mul(cotangents[0], slopes[:, 0], out=out), None, ()


class LSTM(Cell):
    """An LSTM: c' = f c + i u and h' = o tanh(c'), with gates in the order i, f, u, o."""

    slopes, deltas = 6, 4

    def advance(
        self, inputs: Tensor, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensors, Tensors]:
        i, f, _, o = sums.sigmoid().chunk(4, -1)
        u = sums.chunk(4, -1)[2].tanh()
        new, old = i * u, f * states[1]
        c = new + old
        squashed = c.tanh()
        h = o * squashed
        slopes = (
            torch.addcmul(new, new, i, value=-1),  # dc'/ds_i = u i (1 - i)
            torch.addcmul(old, old, f, value=-1),  # dc'/ds_f = c f (1 - f)
            torch.addcmul(i, new, u, value=-1),  # dc'/ds_u = i (1 - u^2)
            f,  # dc'/dc
            torch.addcmul(h, h, o, value=-1),  # dh'/ds_o = tanh(c') o (1 - o)
            torch.addcmul(o, h, squashed, value=-1),  # dh'/dc' = o (1 - tanh(c')^2)
        )
        return (h, c), slopes

    def retreat(
        self, cotangents: Sequence[Tensor], slopes: Tensor, out: Tensor | None
    ) -> Cotangents:
        dh, dc = cotangents
        products = torch.addcmul(dc, dh, slopes[:, 5]).unsqueeze(-2) * slopes[:, :4]
        parts = [products[..., :3, :].flatten(-2), dh * slopes[:, 4]]
        return torch.cat(parts, -1, out=out), None, (products[..., 3, :],)


class GRU(Cell):
    """A GRU: h' = n + z (h - n) with n = tanh(x_n + r s_n), with gates in the order r, z, n."""

    adds_inputs = False
    slopes, deltas = 5, 5

    def advance(
        self, inputs: Tensor, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensors, Tensors]:
        split = 2 * states[0].shape[-1]
        r, z = (inputs[..., :split] + sums[..., :split]).sigmoid().chunk(2, -1)
        hidden = sums[..., split:]
        n = torch.addcmul(inputs[..., split:], r, hidden).tanh()
        kept = z * (states[0] - n)
        slope = (1 - z) * (1 - n.square())
        scaled = slope * r
        reset = scaled * hidden
        slopes = (
            torch.addcmul(reset, reset, r, value=-1),  # dh'/ds_r = slope s_n r (1 - r)
            torch.addcmul(kept, kept, z, value=-1),  # dh'/ds_z = (h - n) z (1 - z)
            scaled,  # dh'/ds_n
            slope,  # dh'/dx_n
            z,  # dh'/dh
        )
        return (n + kept,), slopes

    def retreat(
        self, cotangents: Sequence[Tensor], slopes: Tensor, out: Tensor | None
    ) -> Cotangents:
        if out is not None:
            out = out.unflatten(-1, slopes.shape[-2:])
        products = torch.mul(cotangents[0].unsqueeze(-2), slopes, out=out)
        return products.flatten(-2), products[..., 4, :], ()

    def split(self, deltas: Tensor) -> tuple[Tensor, Tensor]:
        units = deltas.shape[-1] // 5
        r_z, _, at_inputs, _ = deltas.split([2 * units, units, units, units], -1)
        return torch.cat([r_z, at_inputs], -1), deltas[..., : 3 * units]
