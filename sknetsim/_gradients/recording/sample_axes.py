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
    before, after : int
        Lengths of the axes before and after the samples if the axis is split into three. One of
        them is -1, which stands for all other entries: the axis is (n, f) by default, (f, n) with
        ``before=-1, after=1``, and (2, n, f / 2) with ``before=2``.
    """

    axis: int
    before: int = 1
    after: int = -1

    def fits(self, shape: torch.Size, samples: int) -> bool:
        """Return whether a tensor of a shape can have n samples on this axis."""
        known = abs(self.before * self.after) * samples
        return len(shape) > self.axis and shape[self.axis] % known == 0

    def split(self, tensor: Tensor, samples: int, start: int = 0) -> Tensor:
        """Return the tensor with the samples first: (n, ...), with f entries on the axis.

        With ``start`` axes before those of the tensor, they come after the samples.
        """
        axis = self.axis + start
        if tensor.shape[axis] == samples:
            return tensor.movedim(axis, 0).unsqueeze(axis + 1)
        parts = tensor.unflatten(axis, (self.before, samples, self.after))
        return parts.movedim(axis + 1, 0).flatten(axis + 1, axis + 2)


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
    shapes = {name: tensor.shape for name, tensor in _find_arguments(call)}
    arguments: dict[str, Axis] = {}
    place = SampleAxis(0)
    for name, tensor in _find_arguments(call):
        second: Any = other.arguments[name]
        axis = _find_axis(tensor.shape, second.shape, samples, others)
        if isinstance(axis, SampleAxis) and tensor.shape[axis.axis] > samples:
            own = _find_place(axis, tensor, second, samples, others)
            place = place if own == axis else own
        arguments[name] = axis
    outputs = [
        _find_axis(*pair, samples, others)
        for pair in zip(call.output_shapes, other.output_shapes, strict=True)
    ]
    # The entries of a sample are at the same places in all tensors of a call.
    pairs = zip(outputs, call.output_shapes, strict=True)
    return CallAxes(
        {name: _put(axis, place, shapes[name], samples) for name, axis in arguments.items()},
        [_put(axis, place, shape, samples) for axis, shape in pairs],
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


def _find_place(
    axis: SampleAxis, tensor: Tensor, other: Tensor, samples: int, others: int
) -> SampleAxis:
    """Return the place on an axis at which the last common sample has the same entries in both."""
    entries = tensor.shape[axis.axis] // samples
    inner = [(before, -1) for before in range(2, entries) if entries % before == 0]
    row = min(samples, others) - 1
    distances: dict[SampleAxis, float] = {}
    for before, after in [(1, -1), (-1, 1), *inner]:
        candidate = replace(axis, before=before, after=after)
        if candidate.fits(other.shape, others):
            first = candidate.split(tensor, samples)[row].detach()
            second = candidate.split(other, others)[row].detach()
            if first.shape == second.shape:
                distances[candidate] = float((first.double() - second.double()).abs().sum())
    return min(distances, key=distances.__getitem__, default=axis)


def _put(axis: Axis, place: SampleAxis, shape: torch.Size, samples: int) -> Axis:
    """Return an axis with the samples at a place, if its length allows it."""
    if not isinstance(axis, SampleAxis):
        return axis
    moved = replace(place, axis=axis.axis)
    return moved if moved.fits(shape, samples) else axis
