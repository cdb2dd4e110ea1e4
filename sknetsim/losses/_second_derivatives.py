"""Second derivatives of layers: correct and fast ones, and layers that have none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from .._networks.batches import list_tensors
from .._networks.isolation import attach_hooks
from ..rules import find_decomposition

# Calls of parts of a network, with their arguments.
Calls = list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]


class ReplacedFunctions(TorchFunctionMode):
    """Replacement of functions by equal ones with better second derivatives.

    Those of torch are wrong for `weight_norm`. Those of PReLU take three times as long, because the
    slopes are computed again in the backward pass of each output.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, or its replacement."""
        return _REPLACEMENTS.get(func, func)(*args, **kwargs or {})


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Return x if x > 0, else w x, with one slope w per channel, axis 1, or one for all."""
    slopes = weight.view(()) if weight.numel() == 1 else weight.view(-1, *[1] * (input.ndim - 2))
    # x (p + w q) with q = 1 if x <= 0, else 0, and p = 1 - q. Products are faster than a choice.
    is_scaled = (input <= 0).to(input.dtype)
    return input * torch.addcmul(1 - is_scaled, is_scaled, slopes)


_REPLACEMENTS = {
    torch.prelu: _prelu,
    Tensor.prelu: _prelu,
    torch._weight_norm: find_decomposition(torch._weight_norm),
}


def differentiate(value: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """Return the gradients of a value; none if it does not depend on any parameter."""
    if not value.requires_grad:
        return ()
    return torch.autograd.grad(value, parameters, allow_unused=True)


@contextlib.contextmanager
def record_parts(module: nn.Module) -> Iterator[Calls]:
    """Record each part of a network that is called, with its arguments, innermost parts first."""
    calls: Calls = []

    def record(part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.append((part, args, kwargs))

    def register(part: nn.Module) -> RemovableHandle:
        return part.register_forward_hook(record, with_kwargs=True)

    with attach_hooks(module.modules(), register):
        yield calls


def describe_failing_layer(module: nn.Module, calls: Calls) -> str:
    """Return the type and name of the innermost part that fails on its own."""
    names = {part: name for name, part in module.named_modules()}
    # A copy, because the calls below are recorded too.
    for part, args, kwargs in list(calls):
        try:
            _differentiate_twice(part, args, kwargs)
        except RuntimeError:
            return f"a {type(part).__name__} {names.get(part, '')!r}"
    return "a part"


def _differentiate_twice(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Differentiate a layer's output twice, with respect to its inputs and its parameters."""
    inputs = [_make_leaf(value) for value in args]
    outputs = part(*inputs, **kwargs)
    first = outputs if isinstance(outputs, Tensor) else list_tensors(outputs)[0]
    leaves = [t for t in inputs if isinstance(t, Tensor) and t.requires_grad]
    leaves += [p for p in part.parameters() if p.requires_grad]
    if not leaves or not first.requires_grad:
        return
    loss = first.square().sum()
    gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    total = sum(gradient.square().sum() for gradient in gradients if gradient is not None)
    if isinstance(total, Tensor) and total.requires_grad:
        torch.autograd.grad(total, leaves, allow_unused=True)


def _make_leaf(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_()
    return value
