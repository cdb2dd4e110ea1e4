"""Jacobians of a network at work, with their graph: what losses of similarity are made of.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._gradients.capture import compute_cotangents, record_calls
from .._gradients.engine import GradientEngine, blocks_by_rules
from .._gradients.fallback import Fallback
from .._gradients.outputs import Outputs
from .._gradients.parameters import make_plan
from .._kernels.jacobian import Jacobian
from .._kernels.precision import full_precision
from .._networks.inputs import Inputs, list_tensors, map_tensors, slice_batch
from .._networks.isolation import borrow_and_restore, is_half, iterate_graph
from .._networks.network import Network, resolve_network
from ..exceptions import UnsupportedNetworkError

# Samples on which a network is verified.
_VERIFIED = 8


@dataclass(frozen=True)
class _Verified:
    """What an engine has found out about a network: the ways to its gradients that are right."""

    module: weakref.ref[nn.Module]
    structure: list[Any]
    shapes: list[torch.Size]
    together: bool
    selected: set[str]
    refused: set[str]
    loop: bool

    def holds_for(self, module: nn.Module, inputs: Inputs) -> bool:
        """Whether it is the same network still, whatever its weights are by now.

        One sample alone does not tell how the network treats samples together.
        """
        same = self.module() is module and self.structure == _structure(module)
        same = same and self.shapes == _shapes(inputs)
        return same and (self.together or len(list_tensors(inputs)[0]) == 1)


class DifferentiableEngine:
    """From a network and a batch to Jacobians that can be differentiated in its parameters.

    The network is the user's own, in eval mode meanwhile; nothing of it is kept but its name.

    Parameters
    ----------
    output : str, int, list of int or callable
        Which outputs, see `Outputs`.
    parameters : None, str, list of str or Module
        Which parameters the Jacobians are taken in, see `select_parameters`.
    """

    def __init__(self, output: Any, parameters: Any):
        self.output = output
        self.parameters = parameters
        self._found: _Verified | None = None
        self._calls = 0

    def jacobian(self, estimator: Any, inputs: Inputs) -> Jacobian:
        """Of a batch, by a skorch net or a module."""
        network = resolve_network(estimator)
        inputs = _convert_inputs(network, inputs)
        verified = self._verified(network, inputs)
        with borrow_in_eval_mode(network.module) as module:
            found = _jacobian(network, Outputs(self.output, network), verified, module, inputs)
        return found if torch.is_grad_enabled() else replace(found, outputs=found.outputs.detach())

    def _verified(self, network: Network, inputs: Inputs) -> _Verified:
        """By some samples of the first, second, fourth, eighth ... batch, and where things change.

        A network may treat its batches differently: sort them, or mix their samples.
        """
        self._calls += 1
        found, due = self._found, self._calls & (self._calls - 1) == 0
        if due or found is None or not found.holds_for(network.module, inputs):
            _refuse_half(network.module)
            first = slice_batch(inputs, slice(0, _VERIFIED))
            found = _looked_at(network, self.output, self.parameters, first)
            refuse_single_derivatives(network, found, self.output, first)
            self._found = found
        return found


def _convert_inputs(network: Network, inputs: Any) -> Inputs:
    """Tensors where the network is, floating ones in its dtype."""
    if not isinstance(inputs, Tensor | Mapping | tuple | list):
        raise TypeError(
            f"inputs is a {type(inputs).__name__}; allowed are a tensor, and a dict or tuple of"
            " tensors, such as the network takes: call torch.as_tensor on it."
        )
    if len(list_tensors(inputs)[0]) == 0:
        raise ValueError("inputs has 0 rows; allowed are one or more: leave out empty batches.")

    def taken(tensor: Tensor) -> Tensor:
        dtype = network.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(network.device, dtype)

    return map_tensors(taken, inputs)


def _looked_at(network: Network, output: Any, parameters: Any, inputs: Inputs) -> _Verified:
    engine = GradientEngine(network, output, parameters)
    for _ in engine.jacobians(map_tensors(lambda tensor: tensor.detach().cpu(), inputs)):
        pass
    reference = weakref.ref(network.module)
    known = _structure(network.module), _shapes(inputs)
    together = len(list_tensors(inputs)[0]) > 1
    return _Verified(reference, *known, together, engine.selected, engine.refused, engine.loops)


def _structure(module: nn.Module) -> list[Any]:
    """The layers, which parameters they share, and which of these are trained."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [
        (
            name,
            type(part),
            "forward" in vars(part),
            [(names[id(p)], p.requires_grad, p.dtype) for p in part.parameters(recurse=False)],
        )
        for name, part in module.named_modules()
    ]


def _shapes(inputs: Inputs) -> list[torch.Size]:
    """Of a row."""
    return [tensor.shape[1:] for tensor in list_tensors(inputs)]


def _refuse_half(module: nn.Module) -> None:
    if is_half(module):
        raise UnsupportedNetworkError(
            "network is in half precision, in which second derivatives vanish or overflow; allowed"
            " are float32 and float64, also under autocast: call .float() on it first."
        )


def _refuse_weight_norm(outputs: Tensor) -> None:
    """Of torch._weight_norm the gradient is right, and the gradient's derivative is not."""
    if any("WeightNorm" in node.name() for node in iterate_graph(outputs)):
        raise UnsupportedNetworkError(
            "network uses weight_norm, whose second derivatives torch computes wrongly; allowed are"
            " layers that can be differentiated twice: remove it."
        )


@contextlib.contextmanager
def borrow_in_eval_mode(module: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode, where attention and recurrent layers have second derivatives."""
    device = next(module.parameters()).device
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision(device))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent and device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(borrow_and_restore(module, None))
        for parameter in module.parameters():
            stack.callback(setattr, parameter, "_backward_hooks", parameter._backward_hooks)
            parameter._backward_hooks = None
        yield module


def _jacobian(
    network: Network, outputs: Outputs, verified: _Verified, module: nn.Module, inputs: Inputs
) -> Jacobian:
    plan = make_plan(module, verified.selected, verified.refused)
    with record_calls(list(plan.groups)) as uses:
        raw = network.call(module, inputs)
    targets = outputs.targets(raw, None)
    selected = outputs.select(raw, targets).to(network.dtype)
    if not all(use.fits(len(selected)) for use in uses):
        raise UnsupportedNetworkError(
            "network treats this batch differently from the first one; allowed are networks that"
            " use a layer on the same axes in each batch: make one loss for each kind of batch."
        )
    blocks = blocks_by_rules(plan, uses, compute_cotangents(selected, uses, graph=True), graph=True)
    if plan.unserved:
        fallback = Fallback(network, outputs.select, graph=True)
        fallback.loop = verified.loop
        blocks[tuple(plan.unserved)] = fallback.block(module, plan.unserved, inputs, targets)
    return Jacobian(blocks, plan.layout, selected)


def refuse_single_derivatives(
    network: Network, verified: _Verified, output: Any, inputs: Inputs
) -> None:
    """Differentiate a sample's Jacobian once more, and name the layer where that fails."""
    first = slice_batch(inputs, slice(0, 1))
    with borrow_in_eval_mode(network.module) as module, _calls(module) as calls:
        trainable = [p for p in module.parameters() if p.requires_grad]
        try:
            jacobian = _jacobian(network, Outputs(output, network), verified, module, first)
            _refuse_weight_norm(jacobian.outputs)
            _differentiate(jacobian.self_kernel().sum(), trainable)
        except RuntimeError as error:
            raise UnsupportedNetworkError(
                f"network has {_culprit(module, calls)}, which cannot be differentiated twice"
                f" ({str(error).splitlines()[0]}); allowed are layers that can: replace it."
            ) from error


def _differentiate(value: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    if not value.requires_grad:
        return ()
    return torch.autograd.grad(value, parameters, allow_unused=True)


@contextlib.contextmanager
def _calls(module: nn.Module) -> Iterator[list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]]:
    """What the parts of a network are called with, the innermost first."""
    found: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []

    def record(part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        found.append((part, args, kwargs))

    handles = [p.register_forward_hook(record, with_kwargs=True) for p in module.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _culprit(
    module: nn.Module, calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]
) -> str:
    """The innermost part that fails alone."""
    names = {part: name for name, part in module.named_modules()}
    for part, args, kwargs in list(calls):
        try:
            _twice(part, args, kwargs)
        except RuntimeError:
            return f"a {type(part).__name__} {names.get(part, '')!r}"
    return "a part"


def _twice(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Differentiate what a layer puts out twice, in what it takes in and in its parameters."""
    leaves = [_leaf(value) for value in args]
    outputs = part(*leaves, **kwargs)
    first = outputs if isinstance(outputs, Tensor) else list_tensors(outputs)[0]
    floating = [t for t in leaves if isinstance(t, Tensor) and t.requires_grad]
    wanted = [*floating, *(p for p in part.parameters() if p.requires_grad)]
    if not wanted or not first.requires_grad:
        return
    found = torch.autograd.grad(first.square().sum(), wanted, create_graph=True, allow_unused=True)
    total = sum(gradient.square().sum() for gradient in found if gradient is not None)
    if isinstance(total, Tensor) and total.requires_grad:
        torch.autograd.grad(total, wanted, allow_unused=True)


def _leaf(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_()
    return value
