"""Uses of parameters on samples, from the recorded calls of a forward pass.

A call whose output has no axis of samples only derives a tensor from parameters. A call whose
output has one uses its parameters, or the tensors derived from them, on samples.

Index legend: n samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..._networks.batches import Inputs, take_batch
from ..graph import GraphMemory, describe_graph
from . import reasons
from .calls import Call, Origin, Tape, find_parameters
from .recorder import record_calls
from .sample_axes import CallAxes, SampleAxis, assume_first_axes, compare_tapes


@dataclass(frozen=True)
class Use:
    """A call that uses parameters on samples.

    Attributes
    ----------
    call : Call
        The call.
    sources : dict of str to Origin
        The arguments that are parameters or derived tensors without samples.
    axes : CallAxes
        The axes of the samples.
    samples : int
        The number n of samples.
    """

    call: Call
    sources: dict[str, Origin]
    axes: CallAxes
    samples: int

    @property
    def output(self) -> int:
        """Index of the output with a place in the autograd graph."""
        return next(i for i, edge in enumerate(self.call.edges) if edge is not None)

    def explain_unsupported(self) -> str | None:
        """Return why the gradients cannot be computed from the call; None if they can."""
        if sum(edge is not None for edge in self.call.edges) != 1:
            return reasons.explain_outputs(self.call)
        if not self.call.is_current:
            return reasons.explain_changes(self.call)
        is_known = self.axes.fits(self.call, self.samples)
        if is_known and isinstance(self.call.function, nn.Module):
            # The rule of a layer takes one row of inputs and outputs per sample.
            rows = (len(self.call.arguments["inputs"]), self.call.output_shapes[0][0])
            axes = (self.axes.arguments["inputs"], self.axes.outputs[0])
            is_known = axes == (SampleAxis(0),) * 2 and rows == (self.samples,) * 2
        return None if is_known else reasons.explain_axes(self.call)

    def parameter_names(self) -> set[str]:
        """Return the names of all parameters behind the used arguments."""
        return set(find_parameters(self.sources.values()))

    def split_cotangents(self, cotangents: Tensor) -> Tensor:
        """Return cotangents of shape (d, ...) at the output as (n, d, ...)."""
        axis = self.axes.outputs[self.output]
        assert isinstance(axis, SampleAxis)
        return axis.split(cotangents, self.samples, 1)

    def split_arguments(self, convert: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return the converted arguments; those with samples have them first."""
        return {
            name: self._split_argument(name, convert(value)) if isinstance(value, Tensor) else value
            for name, value in self.call.arguments.items()
        }

    def has_samples(self, name: str) -> bool:
        """Return whether an argument is a tensor that differs between samples."""
        return name not in self.sources and isinstance(self.axes.arguments.get(name), SampleAxis)

    def _split_argument(self, name: str, value: Tensor) -> Tensor:
        axis = self.axes.arguments[name]
        if name in self.sources or not isinstance(axis, SampleAxis):
            return value
        return axis.split(value, self.samples)


class Resolver:
    """Search for the axes of the samples, which is remembered for each sequence of calls.

    Attributes
    ----------
    graphs : GraphMemory
        Graphs of the batches that other batches have been compared with.
    """

    def __init__(self) -> None:
        self._axes: dict[Any, list[CallAxes]] = {}
        self.graphs = GraphMemory()

    def find_uses(
        self,
        tape: Tape,
        refused: Mapping[str, str],
        reached: Iterable[int],
        evaluate: Callable[[Inputs], Tensor],
    ) -> tuple[list[Use], dict[str, str]]:
        """Return the uses of parameters on samples, and the names of the other parameters.

        The latter have the reasons why their gradients are not computed from their uses.

        Parameters
        ----------
        tape : Tape
            The recorded calls with a batch.
        refused : dict of str to str
            Names of parameters whose gradients must not be computed from their uses, with reasons.
        reached : iterable of int
            Ids of the parameters that the outputs depend on, according to their graph.
        evaluate : callable
            Function that returns the outputs for the first samples of the batch, in cycles.
        """
        names = {id(parameter): name for name, parameter in tape.parameters.items()}
        uses = _list_uses(tape, self._find_axes(tape, evaluate))
        reached_names = {names[parameter] for parameter in reached if parameter in names}
        recorded = {name for use in uses for name in use.parameter_names()}
        unserved = reasons.explain_unrecorded(tape, reached_names - recorded) | dict(refused)
        return _divide_parameters(uses, names.values(), unserved)

    def _find_axes(self, tape: Tape, evaluate: Callable[[Inputs], Tensor]) -> list[CallAxes]:
        """Return the axes of the samples in each call."""
        key = tuple(
            (call.function, tuple(call.arguments), tuple(s.name for s in call.sources.values()))
            for call in tape.calls
        )
        if key not in self._axes:
            count = 3 if tape.samples == 2 else 2
            batch = take_batch(tape.inputs, [row % tape.samples for row in range(count)])
            axes = None
            # A network may only take batches of another size, such as one sample at a time.
            with contextlib.suppress(Exception):
                with record_calls(tape.module, tape.names, batch) as other:
                    outputs = evaluate(batch)
                # Not inside the recording, which this comparison would extend.
                axes = compare_tapes(tape, other)
                self.graphs.add(describe_graph(outputs))
            self._axes[key] = assume_first_axes(tape) if axes is None else axes
        return self._axes[key]


def _list_uses(tape: Tape, axes: list[CallAxes]) -> list[Use]:
    """Return the calls with samples that have a source without samples."""
    with_samples: set[Origin] = set()
    uses = []
    for call, own in zip(tape.calls, axes, strict=True):
        sources = {n: s for n, s in call.sources.items() if s not in with_samples}
        if not sources or own.grows:
            with_samples |= set(call.derived)
        if sources and own.grows:
            uses.append(Use(call, sources, own, tape.samples))
    return uses


def _divide_parameters(
    uses: list[Use], selected: Iterable[str], unserved: dict[str, str]
) -> tuple[list[Use], dict[str, str]]:
    """Return the uses that blocks are computed from, and the names of all other parameters.

    Parameters
    ----------
    uses : list of Use
        All uses on samples.
    selected : iterable of str
        Names of the parameters that are differentiated, in the network's order.
    unserved : dict of str to str
        Names of parameters whose gradients must not be computed from their uses, with reasons.
    """
    for use in uses:
        reason = use.explain_unsupported()
        if reason is not None:
            unserved = dict.fromkeys(use.parameter_names(), reason) | unserved
    if not unserved:
        return uses, {}
    groups = [set(s.find_parameters()) for use in uses for s in use.sources.values()]
    # A tensor that is derived from several parameters is served for all of them or for none.
    while added := {
        name: unserved[min(known)]
        for group in groups
        if (known := group & unserved.keys())
        for name in group - known
    }:
        unserved = unserved | added
    served = []
    for use in uses:
        sources = {
            n: s for n, s in use.sources.items() if not unserved.keys() & s.find_parameters()
        }
        if sources:
            served.append(replace(use, sources=sources))
    return served, {name: unserved[name] for name in selected if name in unserved}
