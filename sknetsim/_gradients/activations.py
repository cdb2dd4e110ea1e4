"""Activations, the inputs of layers, as a source of Jacobians for the perceptual kernel.

The activations a_l(x) of the compared layers l take the place of the gradients of one output, so
that <J(x), J(x')> = sum_l <a_l(x), a_l(x')> / i_l.

Index legend: n samples; i activations of a layer.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from .._kernels.blocks import Block, DenseBlock
from .._kernels.jacobian import Jacobian
from .._networks.batches import find_tensors
from .._networks.fingerprint import fingerprint_value
from .._networks.isolation import attach_hooks
from .._networks.modules import format_names, match_names
from .._networks.network import Network
from .._networks.samples import Samples
from ..exceptions import UnsupportedNetworkError
from .base_engine import BaseEngine
from .graph import GraphMemory, describe_graph
from .verification import is_close, make_mixing_error, select_rows


class ActivationJacobian(Jacobian):
    """Activations of the layers, a_l(x) / sqrt(i_l), in place of gradients."""

    vector_name: ClassVar[str] = "activation vector"


@dataclass(frozen=True)
class LayerInput:
    """Input of a layer in one call.

    Attributes
    ----------
    values : Tensor or None
        First argument; None if it is not a tensor of floating-point numbers.
    direct : bool
        Whether it is the network's own input, or a view of it.
    """

    values: Tensor | None
    direct: bool


#: Inputs of the calls of each layer, by the layer's name.
Calls = dict[str, list[LayerInput]]


@contextlib.contextmanager
def record_inputs(module: nn.Module, names: Iterable[str] | None) -> Iterator[Calls]:
    """Record the inputs of the named layers inside the block; None records all layers."""
    calls: Calls = defaultdict(list)
    storages: set[int] = set()
    names_of_layers = {
        layer: name for name, layer in module.named_modules() if names is None or name in names
    }

    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if layer is module:
            given = find_tensors((*args, *kwargs.values()))
            storages.update(tensor.untyped_storage().data_ptr() for tensor in given)
        if layer not in names_of_layers:
            return
        name = names_of_layers[layer]
        first = next(iter((*args, *kwargs.values())), None)
        if not isinstance(first, Tensor) or not first.is_floating_point():
            calls[name].append(LayerInput(None, False))
            return
        direct = first.untyped_storage().data_ptr() in storages
        # The input is copied, because a later in-place operation may change it.
        calls[name].append(LayerInput(first.detach().clone(), direct))

    def register(layer: nn.Module) -> RemovableHandle:
        return layer.register_forward_pre_hook(record, with_kwargs=True)

    with attach_hooks(dict.fromkeys([module, *names_of_layers]), register):
        yield calls


class ActivationEngine(BaseEngine):
    """Source of activations, chunk by chunk.

    Parameters
    ----------
    network : Network
        The network.
    layers : None, str or list of str
        Names of layers, or patterns. None selects the layers with parameters, except the first one
        and layers whose input is the network's own input. If no layer remains, it selects all
        layers with parameters.
    batch_size : int or None
        Samples per chunk; None derives it from the memory budget.
    device : str, device or None
        Device of the evaluation; None for the device of the network.
    """

    def __init__(
        self,
        network: Network,
        layers: Any = None,
        batch_size: int | None = None,
        device: Any = None,
    ):
        # All parameters require a gradient, although none is computed: without one, transformers
        # call a fused function instead of their layers, whose inputs would not be recorded.
        floating = {n for n, p in network.module.named_parameters() if p.is_floating_point()}
        if not floating:
            raise UnsupportedNetworkError(
                "`estimator` must have floating-point parameters; got a network with no parameters"
                " of that kind. Compare X itself, or a function of X, by a scikit-learn kernel."
            )
        super().__init__(network, floating, batch_size, device)
        self.layers = layers
        self._sizes: dict[str, int] = {}
        self._one_by_one = self._moves_samples = False
        self._graphs = GraphMemory()

    def identity(self) -> str:
        """Return the fingerprint of the network and of the names of the layers."""
        return fingerprint_value((self.network.module, self.layers))

    def _count_affordable_samples(self, samples: Samples, factored: bool) -> int:
        if self._one_by_one:
            return 1
        return super()._count_affordable_samples(samples, factored)

    def _measure(self, samples: Samples, factored: bool) -> None:
        """Choose the layers, and estimate the bytes that the network needs for one sample."""
        recorded = self._record(samples, slice(0, 1), None)
        if recorded is None:
            return
        calls, module = recorded[0], self.network.module
        if not self._sizes:
            names = _choose_layers(module, calls, self.layers)
            self._sizes = {name: _flatten_calls(calls[name], 1).shape[1] for name in names}
        # The network holds about the inputs of all innermost layers at once. Twice as much is added
        # for the recorded and the scaled copies.
        leaves = [name for name, part in module.named_modules() if not list(part.children())]
        held = sum(_nbytes(calls[name]) for name in leaves if name in calls)
        self._sample_bytes[factored] = max(1, 3 * held)

    def _compute_chunk(self, samples: Samples, chunk: slice, factored: bool) -> Jacobian | None:
        """Return the activations of a chunk; None if the chunk must be computed again."""
        while not self._sizes:
            self._measure(samples, factored)
        computed = self._compute_activations(samples, chunk)
        if computed is None or not self._are_independent(*computed, samples, chunk):
            return None
        activations = computed[0]
        blocks: dict[tuple[str, ...], Block] = {
            (name,): DenseBlock(((name, values.shape[1:]),), values[:, None])
            for name, values in activations.items()
        }
        layout = tuple(entry for block in blocks.values() for entry in block.layout)
        outputs = next(iter(activations.values()))[:, :1]
        return ActivationJacobian(blocks, layout, outputs)

    def _record(
        self, samples: Samples, chunk: slice, names: Iterable[str] | None
    ) -> tuple[Calls, list[Tensor]] | None:
        """Return the inputs of layers for a chunk, and the outputs of the network.

        The result is None if the layers of the original network were called instead of the copy's
        layers, so that nothing was recorded. The next call evaluates the original network.
        """
        shared_copy = self._isolated.shared_copy
        with (
            self.batch(samples, chunk) as (module, inputs, _),
            record_inputs(module, names) as calls,
        ):
            tensors = find_tensors(self.forward(module, inputs))
            outputs = [tensor for tensor in tensors if tensor.is_floating_point()]
            graphs = [describe_graph(tensor) for tensor in outputs if tensor.ndim]
            for graph in graphs:
                self._moves_samples |= self._graphs.moves_samples(graph)
                if graph.samples == 1:
                    self._graphs.add(graph)
        return (
            (calls, [tensor.detach() for tensor in outputs])
            if self._isolated.shared_copy is shared_copy
            else None
        )

    def _compute_activations(
        self, samples: Samples, chunk: slice
    ) -> tuple[dict[str, Tensor], list[Tensor]] | None:
        """Return the scaled activations (n, i) of each layer, and the outputs of the network.

        The result is None if nothing was recorded, or if the first axis of some input is not the
        samples. In the latter case, samples are evaluated one by one from then on.
        """
        recorded = self._record(samples, chunk, self._sizes)
        if recorded is None:
            return None
        calls, outputs = recorded
        count = chunk.stop - chunk.start
        values = [call.values for name in self._sizes for call in calls[name]]
        if count > 1 and any(value is None or len(value) != count for value in values):
            self._one_by_one = True
            return None
        return {name: self._scale(name, calls[name], count) for name in self._sizes}, outputs

    def _scale(self, name: str, calls: list[LayerInput], samples: int) -> Tensor:
        """Return a_l(x_n) / sqrt(i_l), of shape (n, i)."""
        values = _flatten_calls(calls, samples).to(self.dtype)
        if values.shape[1] != self._sizes[name]:
            raise ValueError(
                f"`X` must contain samples of one shape; got some for which layer {name!r} takes in"
                f" {self._sizes[name]} numbers, and others for which it takes in {values.shape[1]}."
                " Pad or resize them, or name `layers` that come after a mean over positions."
            )
        return values / math.sqrt(values.shape[1])

    def _are_independent(
        self, activations: dict[str, Tensor], outputs: list[Tensor], samples: Samples, chunk: slice
    ) -> bool:
        """Return whether some samples have the same activations in batches of their own.

        These are the first, the last and some other samples. If they have other activations, or if
        the network may move samples, samples are evaluated one by one from then on. If even their
        outputs are different, the network mixes samples, and an error is raised.
        """
        count = chunk.stop - chunk.start
        if count == 1:
            return True
        for rows in ([0], [count - 1], select_rows(count, chunk.start)):
            some = samples.select([chunk.start + row for row in rows])
            again = self._compute_activations(some, slice(0, len(rows)))
            if again is None:
                return False
            own_activations, own_outputs = again
            # a(X)[rows] is compared with a(X[rows]), and likewise the outputs.
            for alone, together in zip(own_outputs, outputs, strict=False):
                has_rows = together.shape[:1] == (count,)
                if has_rows and not is_close(alone, together[rows], together):
                    raise make_mixing_error()
            if not all(
                is_close(own_activations[name], together[rows], together)
                for name, together in activations.items()
            ):
                self._one_by_one = True
                return False
        # The inputs of layers may be in another order than the samples.
        self._one_by_one |= self._moves_samples
        return not self._moves_samples


def _flatten_calls(calls: list[LayerInput], samples: int) -> Tensor:
    """Return the activations of all calls of a layer, of shape (n, i).

    If there is a single sample, it may be on any axis.
    """
    parts = [call.values.reshape(samples, -1) for call in calls if call.values is not None]
    return torch.cat(parts, dim=1) if parts else torch.empty(samples, 0)


def _nbytes(calls: list[LayerInput]) -> int:
    """Return the size of the inputs of all calls of a layer, in bytes."""
    return sum(call.values.nbytes for call in calls if call.values is not None)


def _choose_layers(module: nn.Module, calls: Calls, layers: Any) -> list[str]:
    """Return the names of the layers to compare, in the network's order.

    Their inputs are floating-point numbers in all calls.
    """
    usable = [
        name
        for name, _ in module.named_modules()
        if calls.get(name) and all(call.values is not None for call in calls[name])
    ]
    if len(usable) > 1:
        usable = [name for name in usable if name]  # The network as a whole has no name.
    if layers is not None:
        return _match_layers(usable, layers)
    return _choose_default_layers(module, calls, usable)


def _choose_default_layers(module: nn.Module, calls: Calls, usable: list[str]) -> list[str]:
    """Return the layers with parameters whose input is computed by other layers.

    If there are none, all layers with parameters are returned.
    """
    parts = dict(module.named_modules())
    called = [name for name in calls if _has_parameters(parts[name])]
    own = [name for name in usable if name in called]
    if not own:
        raise UnsupportedNetworkError(
            "`estimator` must call layers with parameters and floating-point inputs as modules,"
            " because layers=None compares their inputs; got a network that calls none. Name other"
            " `layers`."
        )
    first = next((name for name in called if name), "")
    return [n for n in own if n != first and not any(call.direct for call in calls[n])] or own


def _match_layers(usable: list[str], layers: Any) -> list[str]:
    """Return the names that match ``layers``; raise an error if there are none."""
    chosen = match_names(usable, layers)
    if not chosen:
        raise ValueError(
            "`layers` must be None, or names or patterns that each match a layer with"
            f" floating-point inputs, among {format_names(usable)}; got {layers!r}. Use names of"
            " this list."
        )
    return [name for name in usable if name in chosen]


def _has_parameters(layer: nn.Module) -> bool:
    """Return whether a layer itself owns parameters, parametrized ones included."""
    own = any(parameter is not None for parameter in layer._parameters.values())
    return own or parametrize.is_parametrized(layer)
