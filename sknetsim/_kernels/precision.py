"""Settings of torch in which networks and kernels are computed exactly.

Arithmetic is in the dtype of the tensors, even if the caller has enabled a reduced precision.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

#: Dtypes of half precision.
HALF = (torch.float16, torch.bfloat16)

Result = TypeVar("Result")

# Number of threads that have set an attribute, and its value before, by owner and name.
_assigned: dict[tuple[int, str], tuple[int, Any]] = {}
_lock = threading.Lock()


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable autocast and TF32 inside the block."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        for owner, name, value in _settings_without_tf32(device):
            stack.enter_context(assign(owner, name, value))
        yield


@contextlib.contextmanager
def assign(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute inside the block, also if several threads are inside at the same time."""
    key = id(owner), name
    with _lock:
        count, before = _assigned.get(key, (0, getattr(owner, name)))
        # Some versions of torch warn at any assignment to one of its settings.
        if getattr(owner, name) != value:
            setattr(owner, name, value)
        _assigned[key] = count + 1, before
    try:
        yield
    finally:
        with _lock:
            count, before = _assigned.pop(key)
            if count > 1:
                _assigned[key] = count - 1, before
            elif getattr(owner, name) != before:
                setattr(owner, name, before)


def _settings_without_tf32(device: torch.device) -> Iterator[tuple[Any, str, Any]]:
    """Yield the settings (owner, attribute, value) that disable TF32.

    torch has two interfaces to them. Once the caller has used the newer one, the older one raises
    an error.
    """
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if _has_older_interface(matmul):
        yield matmul, "allow_tf32", False
    else:
        yield matmul, "fp32_precision", "ieee"
    if device.type == "cuda":
        if _has_older_interface(cudnn):
            yield cudnn, "allow_tf32", False
        else:
            yield cudnn.conv, "fp32_precision", "ieee"
            yield cudnn.rnn, "fp32_precision", "ieee"


def _has_older_interface(backend: Any) -> bool:
    try:
        return isinstance(backend.allow_tf32, bool)
    except RuntimeError:
        return False


def in_full_precision(method: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a method to run in full precision on the device of ``self.outputs``.

    The method records a graph for autograd if and only if the outputs require a gradient.
    """

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any) -> Result:
        graph = torch.set_grad_enabled(self.outputs.requires_grad)
        with graph, full_precision(self.outputs.device):
            return method(self, *args)

    return wrapper


class SinglePrecision(TorchFunctionMode):
    """Replacement of half precision by float32 in the calls of torch inside the block.

    A half-precision network that is evaluated in float32 may name its dtype in its code, such as
    ``x.to(torch.bfloat16)`` or ``x.half()``.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch with float32 in place of half precision."""
        func = torch.Tensor.float if func in (torch.Tensor.half, torch.Tensor.bfloat16) else func
        named = {name: _replace_half(value) for name, value in (kwargs or {}).items()}
        return func(*map(_replace_half, args), **named)


def _replace_half(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value in HALF else value


class _FusedTransformers:
    """Setting of torch that allows its fused transformer layers."""

    @property
    def enabled(self) -> bool:
        return torch.backends.mha.get_fastpath_enabled()

    @enabled.setter
    def enabled(self, value: bool) -> None:
        torch.backends.mha.set_fastpath_enabled(value)


_FUSED_TRANSFORMERS = _FusedTransformers()


@contextlib.contextmanager
def exact_evaluation(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Enable gradients and disable autocast, TF32 and fused transformers inside the block.

    The fused transformer layers of torch, which it uses if no gradient is needed, return other
    outputs at masked positions than the layers that were trained.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(assign(_FUSED_TRANSFORMERS, "enabled", False))
        # A weight that was cached without a gradient would hide the parameters it is made from.
        stack.enter_context(assign(parametrize, "_cache_enabled", 0))
        stack.enter_context(full_precision(device))
        if device.type == "cuda" and not needs_cudnn(module):
            stack.enter_context(assign(torch.backends.cudnn, "enabled", False))
        yield


def needs_cudnn(module: nn.Module) -> bool:
    """Return whether cuDNN makes a network faster and can differentiate it in eval mode.

    Convolutions are slow without it. Its recurrent layers have a backward pass in training mode
    only, so a network with any of them is evaluated without cuDNN.
    """
    layers = list(module.modules())
    recurrent = any(isinstance(layer, nn.RNNBase) for layer in layers)
    return not recurrent and any(isinstance(layer, _ConvNd) for layer in layers)
