"""What layers take in, as if it were gradients of one output: a source of Jacobians.

Index legend: n samples; i activities of a layer.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._kernels.blocks import Block, DenseBlock
from .._kernels.jacobian import Jacobian
from .._networks.batches import Inputs, list_tensors
from .._networks.fingerprint import fingerprint_value
from .._networks.network import Network, match_names
from .._networks.samples import Samples
from ..exceptions import UnsupportedNetworkError
from .base_engine import BaseEngine
from .verification import make_mixing_error


class ActivationJacobian(Jacobian):
    """Activities of the layers, each divided by the root of how many there are."""

    vector_name: ClassVar[str] = "activity vector"


@dataclass(frozen=True)
class LayerInput:
    """What a layer took in, in one call.

    Attributes
    ----------
    values : Tensor or None
        Its first input; None where that is no tensor of floating-point numbers.
    direct : bool
        Whether that is the network's own input, or a view of it.
    """

    values: Tensor | None
    direct: bool


#: Calls of layers, by the layers' names.
Calls = dict[str, list[LayerInput]]


@contextlib.contextmanager
def record_inputs(
    module: nn.Module, names: Iterable[str] | None, inputs: Inputs
) -> Iterator[Calls]:
    """Record what the named layers take in, or all of them."""
    calls: Calls = defaultdict(list)
    own = {tensor.untyped_storage().data_ptr() for tensor in list_tensors(inputs)}

    def record(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(iter((*args, *kwargs.values())), None)
        if not isinstance(first, Tensor) or not first.is_floating_point():
            calls[name].append(LayerInput(None, False))
            return
        direct = first.untyped_storage().data_ptr() in own
        # It may be altered in place later.
        calls[name].append(LayerInput(first.detach().clone(), direct))

    handles = [
        layer.register_forward_pre_hook(
            lambda layer, args, kwargs, name=name: record(name, args, kwargs), with_kwargs=True
        )
        for name, layer in module.named_modules()
        if (names is None or name in names) and not isinstance(layer, torch.jit.ScriptModule)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class ActivationEngine(BaseEngine):
    """What layers take in, chunk by chunk.

    Parameters
    ----------
    network : Network
        The network.
    layers : None, str or list of str
        Names of layers, or patterns; None: those with parameters, but for the first and others
        that see the network's own input, unless there is no other.
    batch_size : int or None
        Samples per chunk; None derives it from the memory budget.
    device : str, device or None
        Where to compute; None: where the network is.
    """

    def __init__(
        self,
        network: Network,
        layers: Any = None,
        batch_size: int | None = None,
        device: Any = None,
    ):
        # With gradients on, transformers call their parts and no function in their place.
        floating = {n for n, p in network.module.named_parameters() if p.is_floating_point()}
        if not floating:
            raise UnsupportedNetworkError(
                "estimator has no parameters; allowed are networks with some: compare X itself, or"
                " a function of it, by a kernel of scikit-learn."
            )
        super().__init__(network, floating, batch_size, device)
        self.layers = layers
        self._sizes: dict[str, int] = {}
        self._one_by_one = False

    def identity(self) -> str:
        """A fingerprint of the network and of the layers."""
        return fingerprint_value((self.network.module, self.layers))

    def _affordable_rows(self, rows: Samples, labels: Tensor | None) -> int:
        return 1 if self._one_by_one else super()._affordable_rows(rows, labels)

    def _measure(self, rows: Samples, labels: Tensor | None) -> None:
        """Choose the layers; what all parts take in is about what the network holds at once."""
        ran = self._run(rows, slice(0, 1), None)
        if ran is None:
            return
        calls, module = ran[0], self.network.module
        if not self._sizes:
            names = _chosen(module, calls, self.layers)
            self._sizes = {name: _flat(calls[name], 1).shape[1] for name in names}
        leaves = [name for name, part in module.named_modules() if not list(part.children())]
        self._row_bytes = max(1, 3 * sum(_nbytes(calls[name]) for name in leaves if name in calls))

    def _chunk(
        self, rows: Samples, labels: Tensor | None, chunk: slice, factored: bool
    ) -> Jacobian | None:
        """Activities of some rows; None where they must be asked for again."""
        while not self._sizes:
            self._measure(rows, labels)
        ran = self._activities(rows, chunk)
        if ran is None or not self._same_alone(*ran, rows, chunk):
            return None
        found = ran[0]
        blocks: dict[tuple[str, ...], Block] = {
            (name,): DenseBlock(((name, values.shape[1:]),), values[:, None])
            for name, values in found.items()
        }
        layout = tuple(entry for block in blocks.values() for entry in block.layout)
        outputs = next(iter(found.values()))[:, :1]
        return ActivationJacobian(blocks, layout, outputs)

    def _run(
        self, rows: Samples, chunk: slice, names: Iterable[str] | None
    ) -> tuple[Calls, list[Tensor]] | None:
        """What layers take in at some rows, and outputs; None where it was not they that ran."""
        shadow = self._isolated.shared_copy
        with (
            self.batch(rows, None, chunk) as (module, inputs, _),
            record_inputs(module, names, inputs) as calls,
        ):
            outputs = _tensors(self.forward(module, inputs))
        return (calls, outputs) if self._isolated.shared_copy is shadow else None

    def _activities(
        self, rows: Samples, chunk: slice
    ) -> tuple[dict[str, Tensor], list[Tensor]] | None:
        """Scaled activities (n, i) of each layer, and outputs; None where these are none."""
        ran = self._run(rows, chunk, self._sizes)
        if ran is None:
            return None
        calls, outputs = ran
        samples = chunk.stop - chunk.start
        given = [taken.values for name in self._sizes for taken in calls[name]]
        if samples > 1 and any(values is None or len(values) != samples for values in given):
            self._one_by_one = True
            return None
        return {name: self._scaled(name, calls[name], samples) for name in self._sizes}, outputs

    def _scaled(self, name: str, calls: list[LayerInput], samples: int) -> Tensor:
        values = _flat(calls, samples).to(self.dtype)
        if values.shape[1] != self._sizes[name]:
            raise ValueError(
                f"X has rows for which layer {name!r} takes in {self._sizes[name]} numbers, and"
                f" others for which it takes in {values.shape[1]}; allowed are rows of one shape:"
                " pad or resize them, or name `layers` that come after a mean over positions."
            )
        return values / math.sqrt(values.shape[1])

    def _same_alone(
        self, found: dict[str, Tensor], outputs: list[Tensor], rows: Samples, chunk: slice
    ) -> bool:
        """Whether the first and the last sample have these activities alone; else one by one.

        Where even their outputs are others alone, the network mixes samples.
        """
        samples = chunk.stop - chunk.start
        for index in (0, samples - 1) if samples > 1 else ():
            at, row = chunk.start + index, slice(index, index + 1)
            alone = self._activities(rows, slice(at, at + 1))
            if alone is None:
                return False
            for single, values in zip(alone[1], outputs, strict=False):
                if values.shape[:1] == (samples,) and not _close(single, values[row], values):
                    raise make_mixing_error()
            if not all(_close(alone[0][name], found[name][row], found[name]) for name in found):
                self._one_by_one = True
                return False
        return True


def _tensors(raw: Any) -> list[Tensor]:
    """The floating-point tensors of a network's raw output."""
    if isinstance(raw, Tensor):
        return [raw.detach()] if raw.is_floating_point() else []
    parts = raw.values() if isinstance(raw, Mapping) else raw
    is_nested = isinstance(raw, Mapping | list | tuple)
    return [tensor for part in parts for tensor in _tensors(part)] if is_nested else []


def _close(alone: Tensor, together: Tensor, values: Tensor) -> bool:
    """Whether two are equal to rounding; what is not finite is refused later."""
    largest = float(values.abs().max()) if values.numel() else 0.0
    tolerance = torch.finfo(values.dtype).eps ** 0.5 * largest
    if alone.shape != together.shape or not math.isfinite(largest):
        return alone.shape == together.shape
    return torch.allclose(alone, together, rtol=0, atol=tolerance)


def _flat(calls: list[LayerInput], samples: int) -> Tensor:
    """Activities of all calls (n, i); those of a single sample belong to it on any axis."""
    parts = [taken.values.reshape(samples, -1) for taken in calls if taken.values is not None]
    return torch.cat(parts, dim=1) if parts else torch.empty(samples, 0)


def _nbytes(calls: list[LayerInput]) -> int:
    return sum(taken.values.nbytes for taken in calls if taken.values is not None)


def _chosen(module: nn.Module, calls: Calls, layers: Any) -> list[str]:
    """Layers to compare, among those that take in numbers, in the network's order."""
    usable = [
        name
        for name, _ in module.named_modules()
        if calls.get(name) and all(taken.values is not None for taken in calls[name])
    ]
    if len(usable) > 1:
        usable = [name for name in usable if name]  # The network as a whole is no layer.
    if layers is not None:
        return _matching(usable, layers)
    return _default(module, calls, usable)


def _default(module: nn.Module, calls: Calls, usable: list[str]) -> list[str]:
    """Layers with parameters that are behind others, or else those that are not."""
    parts = dict(module.named_modules())
    called = [name for name in calls if _has_parameters(parts[name])]
    own = [name for name in usable if name in called]
    if not own:
        raise UnsupportedNetworkError(
            "estimator calls no layer with parameters that takes in floating-point numbers, which"
            " layers=None compares; allowed are networks that call such layers as modules: name"
            " other `layers`."
        )
    first = next((name for name in called if name), "")
    return [n for n in own if n != first and not any(taken.direct for taken in calls[n])] or own


def _matching(usable: list[str], layers: Any) -> list[str]:
    chosen = match_names(usable, layers)
    if not chosen:
        raise ValueError(
            f"layers is {layers!r}, of which something matches no layer that takes in"
            " floating-point numbers; allowed are None, and names or patterns among"
            f" {', '.join(repr(name) for name in usable[:20])}."
        )
    return [name for name in usable if name in chosen]


def _has_parameters(layer: nn.Module) -> bool:
    own = any(parameter is not None for parameter in layer._parameters.values())
    return own or parametrize.is_parametrized(layer)
