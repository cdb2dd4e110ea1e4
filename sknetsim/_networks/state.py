"""State of a network, to which it is restored: attributes, modes, buffers, gradients and hooks."""

from __future__ import annotations

import contextlib
import threading
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .writes import Writes

# Held while a network is borrowed.
_borrow_lock = threading.RLock()

# Containers that are restored if their contents have changed.
_CONTAINERS = (dict, list, set, deque)

# Types of values without contents that a network changes.
_OPAQUE = (Tensor, nn.Module, torch.Generator, type, types.ModuleType, types.FunctionType)

# Contents of larger containers, such as vocabularies, are not searched for other containers.
_SEARCHED = 1000

#: Attributes of a module that contain hooks.
HOOKS = frozenset(name for name in vars(nn.Module()) if "hooks" in name)


class ModuleState:
    """Attributes of all parts of a network at one moment, to which they can be restored.

    These are the attributes themselves, the contents of containers, also of those inside other
    containers and objects, and the names of parameters and buffers. The values of tensors are not
    included. TorchScript modules are not included either, because they have no such attributes.

    Parameters
    ----------
    module : Module
        The network.
    left_out : set of str
        Names of attributes whose contents are not restored.
    """

    def __init__(self, module: nn.Module, left_out: Iterable[str] = ()):
        parts = [m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule)]
        known: dict[int, Any] = {}
        for part in parts:
            known[id(vars(part))] = vars(part)
            for name, value in vars(part).items():
                if name not in left_out:
                    _collect_containers(value, known)
        self._contents = [_Contents(container) for container in known.values()]

    def has_changed(self) -> bool:
        """Return whether some attribute or container has changed."""
        return any(contents.has_changed() for contents in self._contents)

    def restore(self) -> None:
        """Restore the attributes and containers that have changed."""
        for contents in self._contents:
            if contents.has_changed():
                contents.restore()


class _Contents:
    """Contents of a container at one moment."""

    def __init__(self, container: Any):
        self.container = container
        self.contents = dict(container) if isinstance(container, dict) else list(container)
        self.ids = list(_iterate_ids(container))

    def has_changed(self) -> bool:
        return list(_iterate_ids(self.container)) != self.ids

    def restore(self) -> None:
        self.container.clear()
        if isinstance(self.container, dict | set):
            self.container.update(self.contents)
        else:
            self.container.extend(self.contents)


def _iterate_ids(container: Any) -> Iterator[int]:
    """Return the ids of the values of a container, which identify its contents."""
    return map(id, container.values() if isinstance(container, dict) else container)


def _collect_containers(value: Any, known: dict[int, Any]) -> None:
    """Add a value's containers to those ``known`` by id: itself, or those inside it."""
    if isinstance(value, _OPAQUE) or id(value) in known:
        return
    if not isinstance(value, _CONTAINERS):
        value = getattr(value, "__dict__", None)
        if not isinstance(value, dict) or id(value) in known:
            return
    known[id(value)] = value
    if len(value) <= _SEARCHED:
        for part in value.values() if isinstance(value, dict) else value:
            _collect_containers(part, known)


def lock_networks() -> contextlib.AbstractContextManager[bool]:
    """Return the lock inside which no other thread borrows a network."""
    return _borrow_lock


def list_plain_tensors(module: nn.Module) -> list[Tensor]:
    """Return the tensors in plain attributes, such as the weight of old-style weight_norm."""
    values = [value for part in module.modules() for value in vars(part).values()]
    return [value for value in values if isinstance(value, Tensor)]


@contextlib.contextmanager
def borrow_and_restore(module: nn.Module, selected: set[str] | None) -> Iterator[nn.Module]:
    """Set a network to eval mode inside the block, and restore its state at the end.

    Inside the block, only the ``selected`` parameters require a gradient. None changes nothing in
    this respect, and sets the modes without calling the network's own ``eval``, which may change
    weights. The restored state consists of the modes, attributes, hooks, contents of buffers and
    plain tensors, memory of the parameters, gradients, and hooks of parameters.
    """
    with _borrow_lock, contextlib.ExitStack() as restore:
        for tensor in [*module.buffers(), *list_plain_tensors(module)]:
            restore.callback(_restore_contents, tensor, tensor.detach().clone())
        restore.callback(ModuleState(module).restore)
        for part in module.modules():
            if isinstance(part, torch.jit.ScriptModule):
                restore.callback(setattr, part, "training", part.training)
        for name, parameter in module.named_parameters():
            restore.callback(setattr, parameter, "grad", parameter.grad)
            parameter.grad = None
            _disable_hooks(parameter, restore)
            restore.callback(restore_memory, parameter, parameter.data)
            if selected is not None:
                restore.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(name in selected)
        if selected is None:
            for part in module.modules():
                part.training = False
        else:
            writes = Writes(module.parameters())
            restore.callback(writes.restore)
            with writes:
                module.eval()
        yield module


def _restore_contents(tensor: Tensor, contents: Tensor) -> None:
    """Restore the contents of a tensor if they have changed."""
    if not torch.equal(tensor, contents):
        tensor.data.copy_(contents)


def restore_memory(parameter: nn.Parameter, data: Tensor) -> bool:
    """Restore the memory of a parameter, and return whether it had been replaced."""
    replaced = parameter.data_ptr() != data.data_ptr()
    if replaced:
        parameter.data = data
    return replaced


def _disable_hooks(parameter: nn.Parameter, restore: contextlib.ExitStack) -> None:
    """Disable the hooks that run once a gradient is accumulated, such as an optimiser's step."""
    hooks: Any = parameter._post_accumulate_grad_hooks
    if hooks is not None:
        restore.callback(setattr, parameter, "_post_accumulate_grad_hooks", hooks)
        parameter._post_accumulate_grad_hooks = type(hooks)()
