"""Recurrent layers and cells of torch, computed so that each weight belongs to a linear layer.

Each function takes ``record`` and the arguments of the function of torch with the same name, and
returns the same values. ``record(inputs, weight, bias, preactivations)`` declares a linear layer
y = W a + b: the gradient of the network's outputs at ``preactivations`` is the cotangent at y, so
that the gradient of W is sum_t e[t] a[t] and that of b is sum_t e[t]. The hidden side of a layer,
with the previous state as its input, is such a linear layer, too.

Index legend: l layers; t time steps; d directions; n samples; i input channels; h units; g gates
times units; p projected units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._cells import GRU, LSTM, RNN, Cell
from ._recurrence import Link, Recurrence, delay
from ._registry import register_recurrence

Record = Callable[[Tensor, Tensor, Tensor | None, Tensor], None]


def run_network(record: Record, cell: Cell, arguments: Sequence[Any]) -> Any:
    """Return the outputs of a network of recurrent layers, padded or packed."""
    if isinstance(arguments[3], Sequence):
        data, batch_sizes, states, weights, _, layers, dropout, train, both = arguments
        batch_first = False
    else:
        data, states, weights, _, layers, dropout, train, both, batch_first = arguments
        batch_sizes = None
    if dropout and train and layers > 1:
        return NotImplemented
    states = (states,) if isinstance(states, Tensor) else tuple(states)
    lengths, packing = None, None
    if batch_sizes is not None:
        data, lengths, packing = unpack(data, batch_sizes)
    elif batch_first:
        data = data.transpose(0, 1)
    directions = 2 if both else 1
    size = len(weights) // (layers * directions)
    last_states = []
    for first in range(0, layers * directions, directions):
        outputs = []
        for k in range(first, first + directions):
            group, starts = weights[k * size : (k + 1) * size], [state[k] for state in states]
            # A group has one more weight if the states are projected.
            run, reverse = run_projected_layer if size % 2 else run_layer, k > first
            steps = run(record, cell, data, lengths, starts, group, reverse)
            outputs.append(steps[0])
            last_states.append([select_last(kind, lengths, reverse) for kind in steps])
        data = torch.cat(outputs, -1)
    if packing is not None:
        data = data.flatten(0, 1)[packing]
    elif batch_first:
        data = data.transpose(0, 1)
    return data, *(torch.stack(kind) for kind in zip(*last_states, strict=True))


def unpack(data: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return padded steps (t, n, i), their lengths, and the indices of the data among (t n)."""
    steps, samples = len(batch_sizes), int(batch_sizes[0])
    present = torch.arange(samples) < batch_sizes[:, None]
    packing = present.flatten().nonzero()[:, 0].to(data.device)
    padded = data.new_zeros(steps * samples, data.shape[1]).index_copy(0, packing, data)
    lengths = present.sum(dim=0).to(data.device)
    return padded.unflatten(0, (steps, samples)), lengths, packing


def run_layer(
    record: Record,
    cell: Cell,
    data: Tensor,
    lengths: Tensor | None,
    starts: Sequence[Tensor],
    group: Sequence[Any],
    reverse: bool,
) -> list[Tensor]:
    """Return the states (t, n, h) of one direction of a layer."""
    w_ih, w_hh, b_ih, b_hh = [*group, None, None][:4]
    inputs = make_preactivations(cell, data, group)
    bias = None if cell.adds_inputs else b_hh
    links = Link.apply(w_hh, bias, *data.shape[:2])
    if bias is None and not cell.adds_inputs:
        bias = w_hh.new_zeros(len(w_hh))
    mark(links[0])
    # The reverse direction of padded sequences starts at the end of each.
    flip = reverse and lengths is not None
    aligned = [reverse_steps(z, lengths) if flip else z for z in (inputs, *links)]
    backward = reverse and not flip
    states = Recurrence.apply(cell, backward, aligned[0], w_hh, bias, *aligned[1:], *starts)
    previous = delay(states[0], starts[0], backward)
    *states, previous = (reverse_steps(z, lengths) if flip else z for z in (*states, previous))
    record(data, w_ih, b_ih, inputs)
    record(previous, w_hh, b_hh, inputs if cell.adds_inputs else links[0])
    return states


def make_preactivations(cell: Cell, data: Tensor, group: Sequence[Any]) -> Tensor:
    """Return the input's side of all steps, with the biases of both sides if both are added."""
    w_ih, _, b_ih, b_hh = [*group, None, None][:4]
    bias = b_ih if b_ih is None or not cell.adds_inputs else b_ih + b_hh
    return mark(F.linear(data, w_ih, bias))


def mark(values: Tensor) -> Tensor:
    """Return values at which gradients can be requested."""
    return values if values.requires_grad else values.requires_grad_()


def reverse_steps(steps: Tensor, lengths: Tensor | None) -> Tensor:
    """Return steps (t, n, ...) with those of each sample in reverse order, padding last."""
    if lengths is None:
        return steps.flip(0)
    time = torch.arange(len(steps), device=steps.device)[:, None]
    index = torch.where(time < lengths, lengths - 1 - time, time)
    return torch.take_along_dim(steps, index[:, :, None], dim=0)


def select_last(states: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """Return the state (n, h) of each sample after the last step that is computed."""
    if reverse:
        return states[0]
    if lengths is None:
        return states[-1]
    return torch.take_along_dim(states, (lengths - 1)[None, :, None], dim=0)[0]


def run_projected_layer(
    record: Record,
    cell: Cell,
    data: Tensor,
    lengths: Tensor | None,
    starts: Sequence[Tensor],
    group: Sequence[Any],
    reverse: bool,
) -> list[Tensor]:
    """Return the same for projected states, by a loop in which each step has its own nodes."""
    w_ih, w_hh, *biases, w_hr = group
    b_ih, b_hh = biases or (None, None)
    inputs = make_preactivations(cell, data, (w_ih, w_hh, *biases))
    # The cotangents at these zeros are those at the projected states.
    zeros = data.new_zeros(*data.shape[:2], len(w_hr)).requires_grad_()
    aligned = [reverse_steps(z, lengths) if reverse else z for z in (inputs, zeros)]
    rows, states = [], starts
    for step, zero in zip(*aligned, strict=True):
        (hidden, memory), _ = cell.advance(step, step + F.linear(states[0], w_hh), states)
        projected = F.linear(hidden, w_hr) + zero
        rows.append((projected, memory, states[0], hidden))
        states = (projected, memory)
    parts = [torch.stack(steps) for steps in zip(*rows, strict=True)]
    parts = [reverse_steps(steps, lengths) if reverse else steps for steps in parts]
    record(data, w_ih, b_ih, inputs)
    record(parts[2], w_hh, b_hh, inputs)
    record(parts[3], w_hr, None, zeros)
    return parts[:2]


def run_cell(
    record: Record,
    cell: Cell,
    data: Tensor,
    states: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Any:
    """Return the next states (n, h) of a cell."""
    states = (states,) if isinstance(states, Tensor) else tuple(states)
    inputs = mark(F.linear(data, w_ih, b_ih))
    sums = mark(F.linear(states[0], w_hh, b_hh))
    record(data, w_ih, b_ih, inputs)
    record(states[0], w_hh, b_hh, sums)
    next_states, _ = cell.advance(inputs, inputs + sums if cell.adds_inputs else sums, states)
    return next_states if len(next_states) > 1 else next_states[0]


@register_recurrence(torch.lstm)
def lstm(record: Record, *arguments: Any) -> Any:
    """Return the outputs of ``torch.lstm``, or NotImplemented with dropout."""
    return run_network(record, LSTM(), arguments)


@register_recurrence(torch.gru)
def gru(record: Record, *arguments: Any) -> Any:
    """Return the outputs of ``torch.gru``, or NotImplemented with dropout."""
    return run_network(record, GRU(), arguments)


@register_recurrence(torch.rnn_tanh)
def rnn_tanh(record: Record, *arguments: Any) -> Any:
    """Return the outputs of ``torch.rnn_tanh``, or NotImplemented with dropout."""
    return run_network(record, RNN(torch.tanh), arguments)


@register_recurrence(torch.rnn_relu)
def rnn_relu(record: Record, *arguments: Any) -> Any:
    """Return the outputs of ``torch.rnn_relu``, or NotImplemented with dropout."""
    return run_network(record, RNN(torch.relu), arguments)


@register_recurrence(torch.lstm_cell)
def lstm_cell(record: Record, *arguments: Any) -> Any:
    """Return the next states of ``torch.lstm_cell``."""
    return run_cell(record, LSTM(), *arguments)


@register_recurrence(torch.gru_cell)
def gru_cell(record: Record, *arguments: Any) -> Any:
    """Return the next states of ``torch.gru_cell``."""
    return run_cell(record, GRU(), *arguments)


@register_recurrence(torch.rnn_tanh_cell)
def rnn_tanh_cell(record: Record, *arguments: Any) -> Any:
    """Return the next states of ``torch.rnn_tanh_cell``."""
    return run_cell(record, RNN(torch.tanh), *arguments)


@register_recurrence(torch.rnn_relu_cell)
def rnn_relu_cell(record: Record, *arguments: Any) -> Any:
    """Return the next states of ``torch.rnn_relu_cell``."""
    return run_cell(record, RNN(torch.relu), *arguments)
