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
from ._recurrence import Link, Order, Recurrence

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
    order, packing = Order(), None
    if batch_sizes is not None:
        data, order, packing = unpack(data, batch_sizes)
    elif batch_first:
        data = data.transpose(0, 1)
    directions = 2 if both else 1
    parts_of_a_layer = len(weights) // (layers * directions)
    last_states = []
    for layer in range(layers):
        first = layer * directions
        starts = [state[first : first + directions] for state in states]
        groups = [
            weights[k * parts_of_a_layer : (k + 1) * parts_of_a_layer]
            for k in range(first, first + directions)
        ]
        run = run_layer if parts_of_a_layer in (2, 4) else run_projected_layer
        data, last = run(record, cell, order, data, starts, groups)
        last_states.append(last)
    if packing is not None:
        data = data.flatten(0, 1)[packing]
    elif batch_first:
        data = data.transpose(0, 1)
    return data, *(torch.cat(kind) for kind in zip(*last_states, strict=True))


def unpack(data: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Order, Tensor]:
    """Return padded steps (t, n, i), their order, and the indices of the data among (t n)."""
    steps, samples = len(batch_sizes), int(batch_sizes[0])
    present = torch.arange(samples) < batch_sizes[:, None]
    packing = present.flatten().nonzero()[:, 0].to(data.device)
    padded = data.new_zeros(steps * samples, data.shape[1]).index_copy(0, packing, data)
    order = Order(present.sum(dim=0).to(data.device))
    return padded.unflatten(0, (steps, samples)), order, packing


def run_layer(
    record: Record,
    cell: Cell,
    order: Order,
    data: Tensor,
    starts: Sequence[Tensor],
    groups: Sequence[Sequence[Any]],
) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs (t, n, d h) and the last states (d, n, h) of a layer."""
    directions = len(groups)
    groups = [[*group, None, None][:4] for group in groups]
    inputs = [make_preactivations(cell, data, group) for group in groups]
    weight = torch.stack([group[1] for group in groups])
    bias = None if cell.adds_inputs else stack_biases(weight, groups)
    links = [make_link(cell, data, group) for group in groups]
    zeros = [zero for pair in zip(*links, strict=True) for zero in pair]
    outputs = Recurrence.apply(cell, order, weight, bias, len(starts), *starts, *inputs, *zeros)
    states = [outputs[k : k + directions] for k in range(0, len(outputs), directions)]
    previous = order.delay(states[0], starts[0])
    for k, (w_ih, w_hh, b_ih, b_hh) in enumerate(groups):
        record(data, w_ih, b_ih, inputs[k])
        record(previous[k], w_hh, b_hh, inputs[k] if cell.adds_inputs else links[k][0])
    return torch.cat(states[0], -1), [order.select_last(kind) for kind in states]


def make_preactivations(cell: Cell, data: Tensor, group: Sequence[Any]) -> Tensor:
    """Return the input's side of all steps, with the biases of both sides if both are added."""
    w_ih, _, b_ih, b_hh = group
    bias = b_ih if b_ih is None or not cell.adds_inputs else b_ih + b_hh
    return mark(F.linear(data, w_ih, bias))


def mark(values: Tensor) -> Tensor:
    """Return values at which gradients can be requested."""
    return values if values.requires_grad else values.requires_grad_()


def stack_biases(weight: Tensor, groups: Sequence[Sequence[Any]]) -> Tensor:
    """Return the biases (d, 1, g) of the hidden side, zeros without biases."""
    if groups[0][3] is None:
        return weight.new_zeros(len(groups), 1, weight.shape[1])
    return torch.stack([group[3] for group in groups]).unsqueeze(1)


def make_link(cell: Cell, data: Tensor, group: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Return the zeros of the hidden side's weight and bias."""
    _, w_hh, _, b_hh = group
    first, second = Link.apply(w_hh, None if cell.adds_inputs else b_hh, *data.shape[:2])
    return mark(first), second


def run_projected_layer(
    record: Record,
    cell: Cell,
    order: Order,
    data: Tensor,
    starts: Sequence[Tensor],
    groups: Sequence[Sequence[Any]],
) -> tuple[Tensor, list[Tensor]]:
    """Return the same for projected states, by a loop in which each step has its own nodes."""
    outputs, last_states = [], []
    for k, group in enumerate(groups):
        w_ih, w_hh, *biases, w_hr = group
        b_ih, b_hh = biases or (None, None)
        inputs = make_preactivations(cell, data, (w_ih, w_hh, b_ih, b_hh))
        # The cotangents at these zeros are those at the projected states.
        zeros = data.new_zeros(*data.shape[:2], len(w_hr)).requires_grad_()
        states = (starts[0][k], starts[1][k])
        before, unprojected, after = [], [], []
        aligned = [order.reverse(steps) if k else steps for steps in (inputs, zeros)]
        for step, zero in zip(*aligned, strict=True):
            before.append(states[0])
            (hidden, memory), _ = cell.advance(step, step + F.linear(states[0], w_hh), states)
            unprojected.append(hidden)
            states = (F.linear(hidden, w_hr) + zero, memory)
            after.append(states)
        parts = [torch.stack(steps) for steps in (before, unprojected, *zip(*after, strict=True))]
        parts = [order.reverse(steps) if k else steps for steps in parts]
        record(data, w_ih, b_ih, inputs)
        record(parts[0], w_hh, b_hh, inputs)
        record(parts[1], w_hr, None, zeros)
        outputs.append(parts[2])
        last_states.append(parts[2:])
    last = [order.select_last(kind) for kind in zip(*last_states, strict=True)]
    return torch.cat(outputs, -1), last


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


def lstm(record: Record, *arguments: Any) -> Any:
    """Return the outputs of ``torch.lstm``, or NotImplemented with dropout."""
    return run_network(record, LSTM(), arguments)


def gru(record: Record, *arguments: Any) -> Any:
    """Return the outputs of ``torch.gru``, or NotImplemented with dropout."""
    return run_network(record, GRU(), arguments)


def rnn_tanh(record: Record, *arguments: Any) -> Any:
    """Return the outputs of ``torch.rnn_tanh``, or NotImplemented with dropout."""
    return run_network(record, RNN(torch.tanh), arguments)


def rnn_relu(record: Record, *arguments: Any) -> Any:
    """Return the outputs of ``torch.rnn_relu``, or NotImplemented with dropout."""
    return run_network(record, RNN(torch.relu), arguments)


def lstm_cell(record: Record, *arguments: Any) -> Any:
    """Return the next states of ``torch.lstm_cell``."""
    return run_cell(record, LSTM(), *arguments)


def gru_cell(record: Record, *arguments: Any) -> Any:
    """Return the next states of ``torch.gru_cell``."""
    return run_cell(record, GRU(), *arguments)


def rnn_tanh_cell(record: Record, *arguments: Any) -> Any:
    """Return the next states of ``torch.rnn_tanh_cell``."""
    return run_cell(record, RNN(torch.tanh), *arguments)


def rnn_relu_cell(record: Record, *arguments: Any) -> Any:
    """Return the next states of ``torch.rnn_relu_cell``."""
    return run_cell(record, RNN(torch.relu), *arguments)
