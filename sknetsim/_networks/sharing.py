"""Copy of a network that shares its weights, on which the network is evaluated."""

from __future__ import annotations

import copy
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._kernels.precision import HALF
from .state import HOOKS, ModuleState, Writes


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that gradients are computed in: float32 for half-precision networks."""
    return torch.float32 if dtype in HALF else dtype


def make_weight_sharing_copy(
    module: nn.Module, selected: set[str], device: torch.device
) -> nn.Module | None:
    """Return a copy in eval mode whose parameters share the memory of the original ones.

    Only the ``selected`` parameters require a gradient. On another device or in half precision, the
    parameters are copied. Buffers and tensors in plain attributes are always copied.

    Returns
    -------
    shared_copy : Module or None
        None if no copy can be made, or if it contains modules of the original network.
    """
    if _reaches_network(module) or any(_is_special(p) for p in module.parameters()):
        return None
    # deepcopy takes the copies of these objects from the memo instead of copying the objects.
    memo: dict[int, object] = {}
    for name, parameter in module.named_parameters():
        own = memo[id(parameter)] = nn.Parameter(_share(parameter, device), name in selected)
        vars(own).update(vars(parameter))
    buffers = {id(buffer) for buffer in module.buffers()}
    for tensor in ModuleState(module).tensors:
        if id(tensor) not in memo and id(tensor) not in buffers:
            # A tensor with a graph requires a gradient, which shows whether outputs depend on it.
            memo[id(tensor)] = _share(tensor, device).clone().requires_grad_(tensor.requires_grad)
    try:
        shared_copy = copy.deepcopy(module, memo)
    except Exception:
        return None
    if {id(part) for part in shared_copy.modules()} & {id(part) for part in module.modules()}:
        return None
    for part in shared_copy.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and _must_change(buffer, device):
                part._buffers[name] = _share(buffer, device)
    _set_eval_mode(shared_copy)
    return shared_copy


def _is_special(parameter: nn.Parameter) -> bool:
    """Return whether a parameter is of a class of its own, which a copy would lose."""
    return type(parameter) is not nn.Parameter


def _reaches_network(module: nn.Module) -> bool:
    """Return whether a hook or function of the network refers to the network.

    deepcopy does not copy functions, so that those of a copy would refer to the original network.
    """
    own = {id(part) for part in module.modules()} | {id(p) for p in module.parameters()}
    own |= {id(buffer) for buffer in module.buffers()}
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            continue
        hooks = [hook for name in HOOKS for hook in vars(part).get(name, {}).values()]
        for function in [*hooks, *vars(part).values()]:
            if own & {id(value) for value in _list_references(function)}:
                return True
    return False


def _list_references(function: Any) -> list[Any]:
    """Return the values that a function refers to from outside its arguments."""
    function = getattr(function, "func", getattr(function, "__func__", function))
    if not isinstance(function, types.FunctionType):
        return []
    cells = [cell for cell in function.__closure__ or () if not _is_empty(cell)]
    names = function.__code__.co_names
    used = [function.__globals__[name] for name in names if name in function.__globals__]
    return [*(cell.cell_contents for cell in cells), *(function.__defaults__ or ()), *used]


def _is_empty(cell: types.CellType) -> bool:
    """Return whether a cell of a closure has no contents yet."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return True
    return False


def _set_eval_mode(shared_copy: nn.Module) -> None:
    """Set a copy to eval mode; parameters that its own code changes then get their own memory."""
    writes = Writes(shared_copy.parameters())
    try:
        with writes:
            shared_copy.eval()
    finally:
        changed = [(tensor, tensor.detach().clone()) for tensor, _ in writes.saved]
        writes.restore()
    for tensor, contents in changed:
        tensor.data = contents


def _must_change(tensor: Tensor, device: torch.device) -> bool:
    """Return whether the device or dtype of a tensor must change for the evaluation."""
    dtype = working_dtype(tensor.dtype)
    return tensor.is_inference() or tensor.device != device or tensor.dtype != dtype


def _share(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor with the same memory, or a copy if its device or dtype must change."""
    shared = tensor.detach()
    if shared.is_inference():
        shared = shared.clone()
    return shared.to(device, working_dtype(tensor.dtype))


def consists_of_torch_layers(module: nn.Module) -> bool:
    """Return whether a network has no code of the user, which might change the network."""
    return all(
        type(part).__module__.startswith("torch.nn.modules.")
        and not any(vars(part)[name] for name in HOOKS if name in vars(part))
        and not any(_is_own_code(value) for name, value in vars(part).items() if name != "_modules")
        for part in module.modules()
    )


def _is_own_code(value: Any) -> bool:
    """Return whether an attribute is a callable that is no function of torch, as an activation."""
    name = getattr(value, "__name__", "")
    return callable(value) and getattr(functional, name, None) is not value
