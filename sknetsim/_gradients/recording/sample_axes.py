"""Axes of the samples in the tensors of recorded calls, found by comparing two batches.

The axis whose length grows with the number of samples carries the samples. It may be any axis, and
each sample may have several entries along it, as in a reshaped tensor of shape (n t, e).

Index legend: n samples; f entries of each sample along the axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .calls import Call, Tape


@dataclass(frozen=True)
class SampleAxis:
    """Axis of the samples in a tensor.

    Attributes
    ----------
    axis : int
        The axis, of length n f.
    is_inner : bool
        Whether consecutive entries belong to different samples (f, n), or to the same one (n, f).
    """

    axis: int
    is_inner: bool = False

    def fits(self, shape: torch.Size, samples: int) -> bool:
        """Return whether a tensor of a shape can have n samples on this axis."""
        return len(shape) > self.axis and shape[self.axis] % samples == 0

    def split(self, tensor: Tensor, samples: int, start: int = 0) -> Tensor:
        """Return the tensor with the samples first: (n, ...), with f entries on the axis.

        With ``start`` axes before those of the tensor, they come after the samples.
        """
        axis = self.axis + start
        if self.is_inner:
            return tensor.unflatten(axis, (-1, samples)).movedim(axis + 1, 0)
        return tensor.unflatten(axis, (samples, -1)).movedim(axis, 0)


#: Axis of the samples; None for a tensor without samples, and False if it is not known.
Axis = SampleAxis | None | bool


@dataclass(frozen=True)
class CallAxes:
    """Axes of the samples in the arguments and outputs of one call.

    They are assumed if two batches cannot be compared, and may then be wrong.
    """

    arguments: dict[str, Axis]
    outputs: list[Axis]
    is_assumed: bool = False

    @property
    def grows(self) -> bool:
        """True if an output depends on the number of samples."""
        return any(axis is not None for axis in self.outputs)

    def fits(self, call: Call, samples: int) -> bool:
        """Return whether all axes are known, and fit a call with n samples."""
        pairs = [(axis, call.arguments[name].shape) for name, axis in self.arguments.items()]
        pairs += list(zip(self.outputs, call.output_shapes, strict=True))
        return all(
            axis is None or (isinstance(axis, SampleAxis) and axis.fits(shape, samples))
            for axis, shape in pairs
        )


def compare_tapes(tape: Tape, other: Tape) -> list[CallAxes] | None:
    """Return the axes of the samples in each call, from batches of different numbers of samples.

    The other batch begins with the first samples of the batch. The result is None if the calls of
    both batches do not correspond.
    """
    pairs = list(zip(tape.calls, other.calls, strict=False))
    if len(tape.calls) != len(other.calls) or not all(_correspond(*pair) for pair in pairs):
        return None
    return [_compare_calls(*pair, tape.samples, other.samples) for pair in pairs]


def assume_first_axes(tape: Tape) -> list[CallAxes]:
    """Return axes according to which each tensor with n rows has the samples on its first axis."""

    def assume(shape: torch.Size) -> Axis:
        return SampleAxis(0) if len(shape) and shape[0] == tape.samples else None

    return [
        CallAxes(
            {name: assume(tensor.shape) for name, tensor in _find_arguments(call)},
            [assume(shape) for shape in call.output_shapes],
            is_assumed=True,
        )
        for call in tape.calls
    ]


def _find_arguments(call: Call) -> Iterator[tuple[str, Tensor]]:
    """Yield the arguments of a call that are tensors."""
    for name, value in call.arguments.items():
        if isinstance(value, Tensor):
            yield name, value


def _correspond(call: Call, other: Call) -> bool:
    """Return whether two calls are calls of the same function with the same parameters."""
    return (
        call.function == other.function
        and call.arguments.keys() == other.arguments.keys()
        and len(call.output_shapes) == len(other.output_shapes)
        and [s.name for s in call.sources.values()] == [s.name for s in other.sources.values()]
    )


def _compare_calls(call: Call, other: Call, samples: int, others: int) -> CallAxes:
    """Return the axes of the samples in a call."""
    arguments: dict[str, Axis] = {}
    is_inner = False
    for name, tensor in _find_arguments(call):
        second: Any = other.arguments[name]
        axis = _find_axis(tensor.shape, second.shape, samples, others)
        if isinstance(axis, SampleAxis) and tensor.shape[axis.axis] > samples:
            is_inner |= _is_inner(axis, tensor, second, samples, others)
        arguments[name] = axis
    outputs = [
        _find_axis(*shapes, samples, others)
        for shapes in zip(call.output_shapes, other.output_shapes, strict=True)
    ]
    if not is_inner:
        return CallAxes(arguments, outputs)
    return CallAxes(
        {name: _make_inner(axis) for name, axis in arguments.items()},
        [_make_inner(axis) for axis in outputs],
    )


def _find_axis(shape: torch.Size, other: torch.Size, samples: int, others: int) -> Axis:
    """Return the axis whose length is proportional to the number of samples."""
    if shape == other:
        return None
    if len(shape) != len(other):
        return False
    # Other axes may be different too, as that of positions up to the longest sequence of a batch.
    axes = [
        axis
        for axis, (own, second) in enumerate(zip(shape, other, strict=True))
        if own != second and own % samples == 0 and own // samples * others == second
    ]
    return SampleAxis(axes[0]) if len(axes) == 1 else False


def _is_inner(axis: SampleAxis, tensor: Tensor, other: Tensor, samples: int, others: int) -> bool:
    """Return whether the entries of a sample are apart, from those of the last common sample."""
    row = min(samples, others) - 1
    distances = []
    for candidate in (axis, replace(axis, is_inner=True)):
        first = candidate.split(tensor, samples)[row].detach()
        second = candidate.split(other, others)[row].detach()
        if first.shape != second.shape:
            return False
        distances.append(float((first.double() - second.double()).abs().sum()))
    return distances[1] < distances[0]


def _make_inner(axis: Axis) -> Axis:
    return replace(axis, is_inner=True) if isinstance(axis, SampleAxis) else axis
