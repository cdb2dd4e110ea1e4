"""Mode that records each call of a function with a parameter in a forward pass.

Index legend: n samples.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils.hooks import RemovableHandle

from ..._networks.batches import Inputs, list_tensors
from ..._networks.isolation import attach_hooks
from ...rules import find_decomposition, find_function_rule, find_recurrence, find_rule
from .calls import Call, Origin, Tape, TensorMap, list_tensors_in, read_version
from .functions import (
    casts_elements,
    find_out_of_place,
    find_permutation,
    list_values,
    name_arguments,
    open_function,
    returns_no_tensor,
    selects_elements,
)


@contextlib.contextmanager
def record_calls(module: nn.Module, names: set[str], inputs: Inputs) -> Iterator[Tape]:
    """Record the calls with the named parameters inside the block.

    Parameters
    ----------
    module : Module
        The network.
    names : set of str
        Names of the parameters.
    inputs : Inputs
        The batch that the network is called on; the first axes are the samples.
    """
    recorder = _Recorder(Tape(module, names, inputs))
    begin, end = (
        attach_hooks(recorder.ruled_layers, register)
        for register in (recorder.claim, recorder.watch)
    )
    with begin, end, recorder:
        yield recorder.tape


class _Recorder(TorchFunctionMode):
    """Record of the calls with parameters, and with tensors that are derived from these only.

    Parameters
    ----------
    tape : Tape
        Tape without calls, to which they are added.
    """

    def __init__(self, tape: Tape):
        super().__init__()
        self.tape = tape
        self._count = tape.samples
        self._sources = {
            id(parameter): Origin(parameter, name)
            for name, parameter in tape.parameters.items()
            if not parameter.is_complex()
        }
        layers = tape.module.modules()
        self.ruled_layers = [layer for layer in layers if find_rule(layer) is not None]
        # Sample at each position of each tensor that depends on samples; None for 0, 1, 2, ...
        self._orders = TensorMap()
        for tensor in list_tensors(tape.inputs):
            self._orders[tensor] = None
        # Parameters of the layers with a rule of their own that are being called.
        self._claimed: Counter[int] = Counter()

    def claim(self, layer: nn.Module) -> RemovableHandle:
        """Attribute the parameters of a layer with a rule to its calls, not to inner functions."""

        def begin(layer: nn.Module, args: Any) -> None:
            self._claimed.update(map(id, layer._parameters.values()))

        return layer.register_forward_pre_hook(begin)

    def watch(self, layer: nn.Module) -> RemovableHandle:
        """Record the calls of a layer with a rule of its own."""

        def record(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            own = {name: p for name, p in layer._parameters.items() if p is not None}
            self._claimed.subtract(map(id, layer._parameters.values()))
            inputs = args[0] if args else kwargs.get("input", next(iter(kwargs.values())))
            self._append(layer, {"inputs": inputs, **own}, [output], [inputs])

        # The hook runs before the user's hooks, so that it records the output of the layer itself.
        return layer.register_forward_hook(record, with_kwargs=True, prepend=True)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function, and record it if an argument is a source."""
        kwargs = kwargs or {}
        if returns_no_tensor(function):
            return function(*args, **kwargs)
        tensors = list_tensors_in((*args, *kwargs.values()))
        if not self._has_source(tensors):
            result = function(*args, **kwargs)
            self._follow(function, args, tensors, result)
            return result
        result = self._run_inner_calls(function, args, kwargs, tensors)
        if result is NotImplemented:
            return self._run(function, args, kwargs, tensors)
        return result

    def _run_inner_calls(self, function: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Return the result of a function whose inner calls are recorded in its place.

        It is NotImplemented if the function itself is to be recorded.
        """
        recurrence = find_recurrence(function)
        if recurrence is not None and not kwargs:
            return self._run_recurrence(function, recurrence, args, tensors)
        if find_function_rule(function) is not None:
            return NotImplemented
        for inner in (find_decomposition(function), open_function(function)):
            if inner is not None:
                with self:
                    result = inner(*args, **kwargs)
                if result is not NotImplemented:
                    if id(result) in self._sources and not kwargs:
                        self._sources[id(result)].decomposed = function, args
                    return result
        return NotImplemented

    def _has_source(self, tensors: list[Tensor]) -> bool:
        """Return whether a call on some tensors is recorded."""
        return torch.is_grad_enabled() and any(id(tensor) in self._sources for tensor in tensors)

    def _follow(
        self, function: Any, args: tuple[Any, ...], tensors: list[Tensor], result: Any
    ) -> None:
        """Note that the results depend on samples if the arguments do, and in which order."""
        orders = self._orders.list_values(list_values(function, tensors))
        if not orders:
            return
        order = _find_first(orders)
        permutation = find_permutation(function, args, self._count)
        if permutation is not None and self._orders.list_values(args[:1]):
            order = permutation if order is None else order[permutation]
        is_setting = result is None and args and isinstance(args[0], Tensor)
        for output in list_tensors_in((args[0] if is_setting else result,)):
            self._orders[output] = order
            if output.is_floating_point():
                self.tape.dtypes.add(output.dtype)

    def _run_recurrence(
        self,
        function: Any,
        recurrence: Callable[..., Any],
        args: Any,
        tensors: list[Tensor],
    ) -> Any:
        """Return the result of an implementation that records calls of linear layers itself."""

        def record(inputs: Tensor, weight: Tensor, bias: Any, preactivations: Tensor) -> None:
            arguments = {"input": inputs, "weight": weight, "bias": bias}
            outputs = [preactivations]
            self._append(functional.linear, arguments, outputs, tensors, recurrence=function)

        # This mode is not active inside, so that only these calls are recorded. Neither are others,
        # which watch the code of the network.
        with no_dispatch():
            result = recurrence(record, *args)
        if result is not NotImplemented:
            self._follow(recurrence, args, tensors, result)
        return result

    def _run(self, function: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Return the result of a function of torch whose arguments contain a source."""
        recorded, kept = function, args
        out_of_place = find_out_of_place(function)
        if out_of_place is not None and args and id(args[0]) not in self._sources:
            # The first argument is overwritten, so its contents before the call are kept.
            recorded, kept = out_of_place, (args[0].clone(), *args[1:])
        versions = [read_version(tensor) for tensor in tensors]
        result = function(*args, **kwargs)
        returned = args[0] if result is None and args else result
        if self._is_unchanged_source(returned, tensors, versions):
            return result
        self._follow(function, args, tensors, result)
        outputs = list_tensors_in((returned,))
        if any(output.requires_grad for output in outputs):
            # Weights may be computed in another dtype than the parameters, too.
            self.tape.dtypes |= {output.dtype for output in outputs if output.is_floating_point()}
            arguments, evaluate = name_arguments(recorded, kept, kwargs)
            self._append(recorded, arguments, outputs, list_values(function, tensors), evaluate)
        return result

    def _is_unchanged_source(self, result: Any, tensors: list[Tensor], versions: list[int]) -> bool:
        """Return whether a function returns a parameter as it was, as `contiguous` and `to` may do.

        For a derived tensor, that may depend on the number of samples, so the call is recorded.
        """
        source = self._sources.get(id(result))
        return (
            source is not None
            and source.name is not None
            and any(
                tensor is result and read_version(tensor) == version
                for tensor, version in zip(tensors, versions, strict=True)
            )
        )

    def _append(
        self,
        function: Any,
        arguments: dict[str, Any],
        outputs: list[Tensor],
        tensors: list[Tensor],
        evaluate: Callable[[dict[str, Any]], Any] | None = None,
        recurrence: Any = None,
    ) -> None:
        """Append a call to the tape, unless its output requires no gradient."""
        sources = {
            name: self._sources[id(value)]
            for name, value in arguments.items()
            if id(value) in self._sources and self._claimed[id(value)] <= 0
        }
        if not sources or not any(output.requires_grad for output in outputs):
            return
        orders = self._orders.list_values(tensors)
        derived = []
        if not orders:
            select = _make_selection(function, sources, evaluate, arguments)
            derived = [
                Origin(output, None, list(sources.values()), _pick(select, index))
                for index, output in enumerate(outputs)
            ]
        self._sources |= {id(source.tensor): source for source in derived}
        versions = {n: read_version(v) for n, v in arguments.items() if isinstance(v, Tensor)}
        self.tape.calls.append(
            Call(
                function,
                arguments,
                sources,
                [output.shape for output in outputs],
                # The edges are stored now, because a later in-place operation moves the outputs to
                # other nodes of the graph.
                [get_gradient_edge(t) if t.requires_grad else None for t in outputs],
                derived,
                versions,
                evaluate,
                _find_first(orders),
                recurrence,
            )
        )


def _find_first(orders: list[Tensor | None]) -> Tensor | None:
    """Return the first order that is not 0, 1, 2, ...; None if there is none."""
    return next((order for order in orders if order is not None), None)


def _make_selection(
    function: Any,
    sources: dict[str, Origin],
    evaluate: Callable[[dict[str, Any]], Any] | None,
    arguments: dict[str, Any],
) -> Callable[[Tensor], list[Tensor]] | None:
    """Return a function that selects the elements of all outputs from another tensor.

    It is None if the outputs are not selected elements of the only source.
    """
    first = next(iter(arguments))
    if list(sources) != [first]:
        return None
    if casts_elements(function):
        return lambda tensor: [tensor]
    # Padding has no gradient.
    if evaluate is None or not selects_elements(function) or arguments.get("padding_idx", -1) >= 0:
        return None
    return lambda tensor: list_tensors_in((evaluate({**arguments, first: tensor}),))


def _pick(
    select: Callable[[Tensor], list[Tensor]] | None, index: int
) -> Callable[[Tensor], Tensor] | None:
    """Return the function that selects the elements of one output; None if there is none."""
    return None if select is None else lambda tensor: select(tensor)[index]
