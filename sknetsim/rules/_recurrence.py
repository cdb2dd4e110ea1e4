"""One recurrent layer over all time steps, with the cotangents at its pre-activations.

A fused kernel keeps the cotangents of the pre-activations to itself, and a loop that is recorded
step by step has about ten nodes for each time step. Here, one node of the graph computes all time
steps and both directions. Its backward pass is a linear recurrence from the last step to the first:

    dh[t] = cotangent of h[t] + delta[t+1] W,    delta[t] = slopes[t] dh[t],

where delta are the cotangents at the pre-activations. The slopes of all time steps are computed
once, in the forward pass.

Index legend: t time steps; d directions; o outputs of the network; n samples; h units; g gates
times units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._cells import Cell


class Order:
    """The order in which a layer takes the time steps of each sample."""

    def __init__(self, lengths: Tensor | None = None) -> None:
        self.lengths = lengths  # Lengths (n,) of the sequences, or None if all are equal.

    def reverse(self, steps: Tensor) -> Tensor:
        """Return steps (t, n, ...) with those of each sample in reverse order, padding last."""
        if self.lengths is None:
            return steps.flip(0)
        time = torch.arange(len(steps), device=steps.device)[:, None]
        index = torch.where(time < self.lengths, self.lengths - 1 - time, time)
        return torch.take_along_dim(steps, index[:, :, None], dim=0)

    def align(self, parts: Sequence[Tensor]) -> Tensor:
        """Return (t, d, n, ...) in the order of computation, from (t, n, ...) by direction."""
        if len(parts) == 1:
            return parts[0].unsqueeze(1)
        return torch.stack([parts[0], self.reverse(parts[1])], dim=1)

    def separate(self, steps: Tensor) -> list[Tensor]:
        """Return (t, n, ...) in the order of time by direction, the inverse of ``align``."""
        first, *second = steps.unbind(1)
        return [first, *map(self.reverse, second)]

    def delay(self, parts: Sequence[Tensor], initial: Tensor) -> list[Tensor]:
        """Return the state before each step by direction."""
        return self.separate(delay(self.align(parts), initial))

    def select_last(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the state (d, n, h) of each sample after its last step in each direction."""
        first, *second = parts
        if self.lengths is None:
            last = first[-1]
        else:
            last = torch.take_along_dim(first, (self.lengths - 1)[None, :, None], dim=0)[0]
        return torch.stack([last, *(states[0] for states in second)])


def delay(steps: Tensor, initial: Tensor) -> Tensor:
    """Return the state before each of the steps (t, d, n, h), from initial states (d, n, h)."""
    return torch.cat([initial.unsqueeze(0), steps[:-1]])


def run_forward(
    cell: Cell, inputs: Tensor, states: Sequence[Tensor], weight: Tensor, bias: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the states and the gates of all steps, each (t, d, n, h)."""
    all_states, all_gates = [], []
    transposed = weight.mT
    for step in inputs.unbind(0):
        sums = torch.baddbmm(step if bias is None else bias, states[0], transposed)
        states, gates = cell.advance(step, sums, states)
        all_states.append(states)
        all_gates.append(gates)
    return stack_steps(all_states), stack_steps(all_gates)


def run_backward(
    cell: Cell, weight: Tensor, slopes: Sequence[Tensor], *cotangents: Tensor | None
) -> tuple[Tensor, ...]:
    """Return delta (t, d, o, n, ...) and the cotangents (d, o, n, h) of the initial states.

    The cotangents (t, d, o, n, h) are those of the states of all steps. The slopes lack the axis o.
    """
    shape = next(steps.shape[1:] for steps in cotangents if steps is not None)
    states = [weight.new_zeros(shape) for _ in cotangents]
    deltas = []
    for step in reversed(range(len(slopes[0]))):
        states = [
            state if steps is None else state + steps[step]
            for state, steps in zip(states, cotangents, strict=True)
        ]
        factors = [slope[step].unsqueeze(1) for slope in slopes]
        delta, at_hidden, direct, states[1:] = cell.retreat(states, factors)
        # dh = direct + delta W, with the axes o and n as one.
        flat = at_hidden.flatten(1, 2)
        if direct is None:
            hidden = torch.bmm(flat, weight)
        else:
            hidden = torch.baddbmm(direct.flatten(1, 2), flat, weight)
        states[0] = hidden.view(shape)
        deltas.append(delta)
    return torch.stack(deltas[::-1]), *states


def stack_steps(steps: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return each kind of value of all steps as one tensor."""
    return [torch.stack(values) for values in zip(*steps, strict=True)]


class Backward(Function):
    """``run_backward`` without a graph, where several outputs of the network share one loop."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return run_backward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing, since this function has no gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[tuple[Tensor, ...], Any]:
        """Move the axis of the map into the axis o."""
        size = info.batch_size
        cotangents = []
        for steps, axis in zip(arguments[3:], in_dims[3:], strict=True):
            if steps is not None and axis is None:
                steps = steps.expand(size, *steps.shape)
            if steps is not None:
                steps = steps.movedim(axis or 0, 2).flatten(2, 3)
            cotangents.append(steps)
        deltas, *states = Backward.apply(*arguments[:3], *cotangents)
        parts = (deltas.unflatten(2, (size, -1)), *(s.unflatten(1, (size, -1)) for s in states))
        return parts, (2, *(1 for _ in states))


class Recurrence(Function):
    """States of all steps of a layer in both directions, from the input's sides of all steps.

    The gradients of the weight and the bias of the hidden side pass through ``Link``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        order: Order,
        weight: Tensor,
        bias: Tensor | None,
        initial: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the states by kind and direction.

        ``tensors`` are the initial states (d, n, h) of ``initial`` kinds, then, by direction,
        the input's sides (t, n, g) and both zeros of ``Link``.
        """
        directions = len(weight)
        starts, inputs = tensors[:initial], tensors[initial : initial + directions]
        states, gates = run_forward(cell, order.align(inputs), starts, weight, bias)
        before = [delay(*pair) for pair in zip(states, starts, strict=True)]
        slopes = cell.compute_slopes(gates, before)
        outputs = [part for state in states for part in order.separate(state)]
        ctx.cell, ctx.order, ctx.counts = cell, order, (initial, directions)
        ctx.save_for_backward(weight, bias, *starts, *inputs, *outputs, *slopes)
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        cell, order, (initial, directions) = ctx.cell, ctx.order, ctx.counts
        weight, bias, *saved = ctx.saved_tensors
        starts, inputs = saved[:initial], saved[initial : initial + directions]
        saved = saved[initial + directions :]
        outputs, slopes = saved[: initial * directions], saved[initial * directions :]
        kinds = range(0, initial * directions, directions)
        by_kind = [align_known(order, cotangents[k : k + directions]) for k in kinds]
        if torch.is_grad_enabled():
            states = [order.align(outputs[k : k + directions]) for k in kinds]
            before = [delay(*pair) for pair in zip(states, starts, strict=True)]
            slopes = recompute_slopes(cell, order.align(inputs), before, weight, bias)
            deltas, *gradients = run_backward(cell, weight, slopes, *by_kind)
        else:
            deltas, *gradients = Backward.apply(cell, weight, slopes, *by_kind)
        at_inputs, at_hidden = cell.split(deltas.squeeze(2))
        previous = order.delay(outputs[:directions], starts[0])
        gradients = [gradient.squeeze(1) for gradient in gradients]
        parts = (order.separate(at_inputs), order.separate(at_hidden), previous)
        return None, None, None, None, None, *gradients, *parts[0], *parts[1], *parts[2]


def align_known(order: Order, parts: Sequence[Tensor | None]) -> Tensor | None:
    """Return cotangents (t, d, 1, n, h), where None is zero, or None if all are None."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    filled = [torch.zeros_like(known[0]) if part is None else part for part in parts]
    return order.align(filled).unsqueeze(2)


def recompute_slopes(
    cell: Cell, inputs: Tensor, before: Sequence[Tensor], weight: Tensor, bias: Tensor | None
) -> Sequence[Tensor]:
    """Return the slopes of all steps with their graph, for second derivatives."""
    # (t, d, n, h) -> (d, t n, h), so that one product serves all steps.
    rows = before[0].transpose(0, 1).flatten(1, 2)
    sums = torch.bmm(rows, weight.mT).unflatten(1, (len(inputs), -1)).transpose(0, 1)
    sums = sums + (inputs if bias is None else bias)
    return cell.compute_slopes(cell.advance(inputs, sums, before)[1], before)


class Link(Function):
    """Two zero tensors whose cotangents give the gradients of the hidden side.

    The first (t, n, g) receives delta, the second (t, n, h) the previous states. A graph that leads
    to the pre-activations only does not run this function, and saves the product.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, steps: int, samples: int
    ) -> tuple[Tensor, Tensor]:
        ctx.has_bias = bias is not None
        widths = weight.shape
        first, second = (weight.new_zeros(()).expand(steps, samples, width) for width in widths)
        return first, second

    @staticmethod
    def backward(ctx: Any, delta: Tensor, previous: Tensor) -> tuple[Tensor | None, ...]:
        # dW = sum_tn delta[t,n] h[t-1,n], db = sum_tn delta[t,n].
        product = delta.flatten(0, 1).mT @ previous.flatten(0, 1)
        return product, delta.sum((0, 1)) if ctx.has_bias else None, None, None
