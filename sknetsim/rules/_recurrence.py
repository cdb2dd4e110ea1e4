"""One direction of a recurrent layer over all time steps, as one node of the graph.

A fused kernel keeps the cotangents of the pre-activations to itself, and a loop that is recorded
step by step has about ten nodes for each time step. Here, the backward pass is a linear recurrence
from the last step to the first:

    dh[t] = cotangent of h[t] + delta[t+1] W,    delta[t] = slopes[t] dh[t],

where delta are the cotangents at the pre-activations. The slopes are computed once, in the forward
pass.

Index legend: t time steps; o outputs of the network; n samples; h units; g gates times units; k
blocks of h units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._cells import Cell


def order_steps(count: int, reverse: bool) -> range:
    """Return the indices of time in the order of computation."""
    return range(count - 1, -1, -1) if reverse else range(count)


def delay(steps: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    """Return the state before each step (t, n, h), from those after each and the first (n, h)."""
    first = initial.unsqueeze(0)
    return torch.cat([steps[1:], first] if reverse else [first, steps[:-1]])


def run_forward(
    cell: Cell,
    inputs: Tensor,
    states: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    reverse: bool,
) -> tuple[list[Tensor], Tensor]:
    """Return the states (t, n, h) of all steps by kind, and the slopes (t, n, k, h)."""
    order = order_steps(len(inputs), reverse)
    units = states[0].shape[-1]
    slopes = inputs.new_empty(*inputs.shape[:2], cell.slopes, units)
    outputs = [inputs.new_empty(*inputs.shape[:2], units) for _ in states]
    transposed = weight.T
    for step in order:
        now = inputs[step]
        sums = torch.addmm(now if bias is None else bias, states[0], transposed)
        states, blocks = cell.advance(now, sums, states)
        torch.stack(blocks, 1, out=slopes[step])
        for output, state in zip(outputs, states, strict=True):
            output[step] = state
    return outputs, slopes


def run_backward(
    cell: Cell, weight: Tensor, slopes: Tensor, reverse: bool, *cotangents: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the cotangents (t, o, n, k h) of all steps, and (o, n, h) of the initial states.

    The given cotangents (t, o, n, h) are those of the states of all steps. The slopes lack the
    axis o.
    """
    shape = next(steps.shape for steps in cotangents if steps is not None)
    states = [weight.new_zeros(shape[1:]) for _ in cotangents]
    rows: list[Any] = [None] * len(slopes)
    if not torch.is_grad_enabled():
        deltas = weight.new_empty(*shape[:3], cell.deltas * shape[3])
        rows = list(deltas.unbind(0))
    # One node of the graph unbinds all steps, where an index would have one for each step.
    by_step = slopes.unbind(0)
    added = [(k, steps.unbind(0)) for k, steps in enumerate(cotangents) if steps is not None]
    for step in reversed(order_steps(len(slopes), reverse)):
        for kind, steps in added:
            states[kind] = states[kind] + steps[step]
        rows[step], direct, states[1:] = cell.retreat(states, by_step[step], rows[step])
        # dh = direct + delta W, with the axes o and n as one.
        delta = rows[step][..., : len(weight)].flatten(0, 1)
        if direct is None:
            hidden = torch.mm(delta, weight)
        else:
            hidden = torch.addmm(direct.flatten(0, 1), delta, weight)
        states[0] = hidden.view(shape[1:])
    return torch.stack(rows) if torch.is_grad_enabled() else deltas, *states


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
        for steps, axis in zip(arguments[4:], in_dims[4:], strict=True):
            if steps is not None and axis is None:
                steps = steps.expand(size, *steps.shape)
            if steps is not None:
                steps = steps.movedim(axis or 0, 1).flatten(1, 2)
            cotangents.append(steps)
        deltas, *states = Backward.apply(*arguments[:4], *cotangents)
        parts = (deltas.unflatten(1, (size, -1)), *(s.unflatten(0, (size, -1)) for s in states))
        return parts, (1, *(0 for _ in states))


class Recurrence(Function):
    """States of all steps of one direction of a layer, from the input's side of all steps.

    The gradients of the weight and the bias of the hidden side pass through ``Link``.
    """

    # Functions of networks may permute the samples; this one does not.
    keeps_samples = True

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        reverse: bool,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        link: Tensor,
        second_link: Tensor,
        *initial: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the states (t, n, h) by kind.

        The inputs (t, n, g) are the input's side, the links both tensors of ``Link``, and the
        initial states have the shape (n, h).
        """
        outputs, slopes = run_forward(cell, inputs, initial, weight, bias, reverse)
        ctx.cell, ctx.reverse = cell, reverse
        ctx.save_for_backward(inputs, weight, bias, slopes, *initial, *outputs)
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        cell, reverse = ctx.cell, ctx.reverse
        inputs, weight, bias, slopes, *states = ctx.saved_tensors
        initial, outputs = states[: len(cotangents)], states[len(cotangents) :]
        cotangents = tuple(None if steps is None else steps.unsqueeze(1) for steps in cotangents)
        pairs = zip(outputs, initial, strict=True)
        if torch.is_grad_enabled():
            before = [delay(*pair, reverse) for pair in pairs]
            slopes = recompute_slopes(cell, inputs, before, weight, bias)
            deltas, *gradients = run_backward(cell, weight, slopes, reverse, *cotangents)
        else:
            before = [delay(*next(pairs), reverse)]
            deltas, *gradients = Backward.apply(cell, weight, slopes, reverse, *cotangents)
        gradients = [gradient.squeeze(0) for gradient in gradients]
        at_inputs, at_hidden = cell.split(deltas.squeeze(1))
        return None, None, at_inputs, None, None, at_hidden, before[0], *gradients


def recompute_slopes(
    cell: Cell, inputs: Tensor, before: Sequence[Tensor], weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Return the slopes of all steps with their graph, for second derivatives."""
    sums = before[0] @ weight.T + (inputs if bias is None else bias)
    _, blocks = cell.advance(inputs, sums, before)
    return torch.stack(blocks, -2)


class Link(Function):
    """Two zero tensors whose cotangents give the gradients of the hidden side.

    The first (t, n, g) receives delta, the second (t, n, h) the previous states. A graph that leads
    to the pre-activations only does not run this function, and saves the product.
    """

    keeps_samples = True

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, steps: int, samples: int
    ) -> tuple[Tensor, Tensor]:
        ctx.has_bias = bias is not None
        first, second = (
            weight.new_zeros(()).expand(steps, samples, width) for width in weight.shape
        )
        return first, second

    @staticmethod
    def backward(ctx: Any, delta: Tensor, previous: Tensor) -> tuple[Tensor | None, ...]:
        # dW = sum_tn delta[t,n] h[t-1,n], db = sum_tn delta[t,n].
        product = delta.flatten(0, 1).mT @ previous.flatten(0, 1)
        return product, delta.sum((0, 1)) if ctx.has_bias else None, None, None
