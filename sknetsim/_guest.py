"""The user's network is a guest: it is studied on a copy of its structure that shares its weights.

Where the structure cannot be copied (or the copy still reaches the original, through a closure),
the network itself is lent, under a lock, and put back as it was.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ._precision import full_precision
from .exceptions import UnsupportedNetworkError

_lending = threading.RLock()
_HALF = (torch.float16, torch.bfloat16)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that gradients are computed in: float32 for half-precision networks."""
    return torch.float32 if dtype in _HALF else dtype


@contextlib.contextmanager
def evaluation(device: torch.device) -> Iterator[None]:
    """Gradients on, autocast and TF32 off, random states put back, whatever the caller has set."""
    devices = [device] if device.type == "cuda" else []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(device),
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=False, allow_tf32=False),
    ):
        yield


def shadow(module: nn.Module, selected: set[str], device: torch.device) -> nn.Module | None:
    """A copy in eval mode whose parameters share the guest's memory; None where none can be made.

    Only the ``selected`` parameters require a gradient.
    """
    memo: dict[int, object] = {}
    for name, parameter in module.named_parameters():
        memo[id(parameter)] = nn.Parameter(_shared(parameter, device), name in selected)
    for tensor in _plain_tensors(module):
        memo.setdefault(id(tensor), _shared(tensor, device).clone())
    try:
        twin = copy.deepcopy(module, memo)
    except Exception:
        return None
    for part in twin.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _shared(buffer, device)
    return twin.eval()


def _shared(tensor: Tensor, device: torch.device) -> Tensor:
    shared = tensor.detach()
    if shared.is_inference():
        shared = shared.clone()
    return shared.to(device, working_dtype(tensor.dtype))


def _plain_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Tensors kept as plain attributes (old-style weight_norm keeps its weight so)."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor):
                yield value


@contextlib.contextmanager
def lent(module: nn.Module, selected: set[str]) -> Iterator[nn.Module]:
    """The guest itself, in eval mode, put back as it was at the end."""
    parameters = dict(module.named_parameters())
    if any(parameter.dtype in _HALF for parameter in parameters.values()):
        raise UnsupportedNetworkError(
            "estimator is a half-precision network that cannot be copied, so that it cannot be"
            " evaluated in float32; allowed are float32 and float64: call .float() on it first."
        )
    with _lending, contextlib.ExitStack() as restore:
        for part in module.modules():
            restore.callback(setattr, part, "training", part.training)
            part.training = False
            for buffer in part._buffers.values():
                if buffer is not None:
                    restore.callback(_copy_back, buffer, buffer.detach().clone())
            for name, value in list(vars(part).items()):
                if isinstance(value, Tensor):
                    restore.callback(part.__dict__.__setitem__, name, value)
        for name, parameter in parameters.items():
            restore.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(name in selected)
            restore.callback(setattr, parameter, "grad", parameter.grad)
            parameter.grad = None
        yield module


def _copy_back(buffer: Tensor, saved: Tensor) -> None:
    with torch.no_grad():
        if not torch.equal(buffer, saved):
            buffer.copy_(saved)


def reaches(outputs: Tensor, module: nn.Module) -> bool:
    """Whether the graph of some outputs leads to parameters of a module."""
    guests = {id(parameter) for parameter in module.parameters()}
    seen, waiting = set(), [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if id(getattr(node, "variable", None)) in guests:
            return True
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    return False
