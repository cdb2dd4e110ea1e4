"""State of a network, to which it is restored: attributes, modes, buffers, gradients and hooks."""

from __future__ import annotations

import contextlib
import functools
import operator
import random
import threading
import types
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# Held while a network is borrowed.
_borrow_lock = threading.RLock()

# Containers that are restored if their contents have changed.
_CONTAINERS = (dict, list, set, deque)

# Types of values without contents that a network changes.
_OPAQUE = (torch.jit.ScriptModule, torch.Generator, type, types.ModuleType, types.FunctionType)

# Types of values that contain no others.
_ATOMS = {type(None), bool, int, float, str, bytes}

# Contents of larger containers, such as vocabularies, are compared by their number only.
_SEARCHED = 1000

# Larger arrays of numpy are not compared.
_COMPARED_ELEMENTS = 100_000

#: Attributes of a module that contain hooks.
HOOKS = frozenset(name for name in vars(nn.Module()) if "hooks" in name)


class ModuleState:
    """Attributes of all parts of a network at one moment, to which they can be restored.

    These are the attributes themselves, and the contents of containers and arrays of numpy, also of
    those inside other containers and objects. Tensors are restored as objects, not their values.
    TorchScript modules are not included, because they have no such attributes.

    Parameters
    ----------
    module : Module
        The network.
    left_out : set of str
        Names of attributes of modules whose contents are not restored.

    Attributes
    ----------
    tensors : list of Tensor
        All tensors among the attributes and in containers.
    """

    def __init__(self, module: nn.Module, left_out: Iterable[str] = ()):
        self._left_out = frozenset(left_out)
        self._packages = {_name_package(part) for part in module.modules()} - {"torch"}
        self._known: dict[int, Any] = {}
        self._contents: list[_Contents | _Attributes | _Array] = []
        self.tensors: list[Tensor] = []
        self._collect(module)
        for part in module.modules():  # Recursion stops at the parts of TorchScript modules.
            self._collect(part)
            if _name_package(part) in self._packages:
                kept = [name for name, value in vars(type(part)).items() if _is_data(value)]
                self._collect_attributes(type(part), kept)

    def _collect(self, value: Any) -> None:
        """Record the contents of a value, and of the values inside it."""
        if id(value) in self._known:
            return
        if isinstance(value, _CONTAINERS):
            self._collect_container(value, ())
        elif isinstance(value, Tensor):
            self._known[id(value)] = value
            self.tensors.append(value)
        elif isinstance(value, tuple):
            for part in value[:_SEARCHED]:
                self._collect(part)
        elif isinstance(value, np.ndarray):
            if value.size <= _COMPARED_ELEMENTS and not value.dtype.hasobject:
                self._known[id(value)] = value
                self._contents.append(_Array(value))
        elif isinstance(value, _OPAQUE):
            return
        elif isinstance(value, nn.Module):
            self._collect_container(vars(value), self._left_out)
        elif isinstance(value, types.SimpleNamespace) or _name_package(value) in self._packages:
            # Loggers and trainers do not belong to the network.
            self._collect_container(getattr(value, "__dict__", {}), ())
            self._collect_attributes(value, getattr(type(value), "__slots__", ()))

    def _collect_attributes(self, owner: Any, names: Iterable[str]) -> None:
        """Record the attributes of an object with slots, or of the class of a part."""
        values = {name: getattr(owner, name) for name in names if hasattr(owner, name)}
        if values and id(owner) not in self._known:
            self._known[id(owner)] = owner
            self._contents.append(_Attributes(owner, values))
            for value in values.values():
                self._collect(value)

    def _collect_container(self, container: Any, left_out: Collection[str]) -> None:
        if id(container) in self._known:
            return
        self._known[id(container)] = container
        self._contents.append(_Contents(container))
        if len(container) > _SEARCHED:
            return
        for name, part in (
            container.items() if isinstance(container, dict) else enumerate(container)
        ):
            if name not in left_out:
                self._collect(part)

    def has_changed(self) -> bool:
        """Return whether some attribute or container has changed."""
        return any(contents.has_changed() for contents in self._contents)

    def restore(self) -> None:
        """Restore the attributes and containers that have changed."""
        for contents in self._contents:
            if contents.has_changed():
                contents.restore()

    def replace(self, tensor: Tensor, other: Tensor) -> None:
        """Put another tensor in the place of a tensor, also when the state is restored later."""
        for contents in self._contents:
            if isinstance(contents, _Contents):
                contents.replace(tensor, other)
        self.tensors = [other if own is tensor else own for own in self.tensors]


def _is_data(value: Any) -> bool:
    """Return whether an attribute of a class is no method, property or other descriptor."""
    return not callable(value) and not hasattr(value, "__get__")


def _name_package(value: Any) -> str:
    """Return the name of the package in which the class of a value is defined."""
    return type(value).__module__.partition(".")[0]


class _Contents:
    """Contents of a container at one moment."""

    def __init__(self, container: Any):
        self.container = container
        self._record()

    def _record(self) -> None:
        is_dict = isinstance(self.container, dict)
        self.contents: Any = dict(self.container) if is_dict else list(self.container)

    def has_changed(self) -> bool:
        own, saved = self.container, self.contents
        if len(own) != len(saved) or len(own) > _SEARCHED:
            return len(own) != len(saved)
        if isinstance(own, dict):
            is_same = own.keys() == saved.keys()
            return not (is_same and all(map(operator.is_, own.values(), saved.values())))
        return not all(map(operator.is_, own, saved))

    def restore(self) -> None:
        self.container.clear()
        if isinstance(self.container, dict | set):
            self.container.update(self.contents)
        else:
            self.container.extend(self.contents)

    def replace(self, tensor: Tensor, other: Tensor) -> None:
        if isinstance(self.container, set):
            return
        pairs = (
            self.container.items()
            if isinstance(self.container, dict)
            else enumerate(self.container)
        )
        for place in [place for place, value in pairs if value is tensor]:
            self.container[place] = other
        self._record()


class _Attributes:
    """Attributes of an object with slots, or of a class, at one moment."""

    def __init__(self, owner: Any, values: dict[str, Any]):
        self.owner = owner
        self.values = {name: value for name, value in values.items() if not name.startswith("__")}

    def has_changed(self) -> bool:
        return any(
            getattr(self.owner, name, None) is not value for name, value in self.values.items()
        )

    def restore(self) -> None:
        for name, value in self.values.items():
            setattr(self.owner, name, value)


class _Array:
    """Values of an array of numpy at one moment."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.contents = array.copy()

    def has_changed(self) -> bool:
        return self.array.tobytes() != self.contents.tobytes()

    def restore(self) -> None:
        self.array[...] = self.contents


def lock_networks() -> contextlib.AbstractContextManager[bool]:
    """Return the lock inside which no other thread borrows a network."""
    return _borrow_lock


def restore_memory(tensor: Tensor, data: Tensor) -> bool:
    """Restore the memory of a tensor, and return whether it had been replaced."""
    # This is no part of the network, and is not recorded with its calls.
    with torch._C.DisableTorchFunction():
        replaced = tensor.data_ptr() != data.data_ptr()
        if replaced:
            tensor.data = data
    return replaced


@contextlib.contextmanager
def restore_random_states(device: torch.device) -> Iterator[Callable[[], bool]]:
    """Restore the global random states of torch, numpy and Python after the block.

    Yields
    ------
    has_drawn : callable
        Function that returns whether one of them may have changed since the start of the block.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        own = torch.get_rng_state()
        others = _read_other_states()

        def has_drawn() -> bool:
            is_same = torch.equal(own, torch.get_rng_state()) and _read_other_states() == others
            return device.type == "cuda" or not is_same

        try:
            yield has_drawn
        finally:
            if _read_other_states() != others:
                random.setstate(others[0])
                name, numbers, *rest = others[1]
                np.random.set_state((name, np.frombuffer(numbers, np.uint32), *rest))


def _read_other_states() -> tuple[Any, Any]:
    """Return the global random states of Python and numpy, in a form that can be compared."""
    state: Any = np.random.get_state()
    name, numbers, *rest = state
    return random.getstate(), (name, numbers.tobytes(), *rest)


class Writes(TorchDispatchMode):
    """Record of the writes into tensors inside the block, which are found by their memory.

    Operations on `detach`, `data` and views are recorded too, although they do not increase the
    version of a tensor. Before the first write into a kept tensor, its contents are copied.

    Parameters
    ----------
    kept : iterable of Tensor
        Tensors whose contents can be restored.

    Attributes
    ----------
    saved : list of (Tensor, Tensor)
        Each kept tensor that was written into, with a copy of its contents before.
    """

    # Operators that take functions, such as flex_attention, reach `__torch_dispatch__` as well.
    supports_higher_order_operators = True

    def __init__(self, kept: Iterable[Tensor]):
        super().__init__()
        self._kept = group_by_storage(kept)
        self.saved: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Record the tensors that an operation writes into, and run it."""
        kwargs = kwargs or {}
        for position, name in _list_written_arguments(func):
            written = args[position] if position < len(args) else kwargs.get(name)
            for tensor in written if isinstance(written, list | tuple) else [written]:
                if isinstance(tensor, Tensor) and _has_storage(tensor):
                    self._record(_identify_storage(tensor))
        return func(*args, **kwargs)

    def _record(self, storage: int) -> None:
        """Record a write into a storage that is about to happen."""
        for tensor in self._kept.pop(storage, ()):
            self.saved.append((tensor, tensor.detach().clone()))

    def restore(self) -> None:
        """Restore the contents of the kept tensors that were written into."""
        for tensor, contents in self.saved:
            # The version of the tensor stays, so that graphs of the user that contain it are valid.
            tensor.data.copy_(contents)


def is_inside_vmap() -> bool:
    """Return whether a transformation of torch.func is running."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def group_by_storage(tensors: Iterable[Tensor]) -> dict[int, list[Tensor]]:
    """Return the tensors by the identity of their memory."""
    groups: dict[int, list[Tensor]] = {}
    # This is no part of the network, and is not recorded with its calls.
    with torch._C.DisableTorchFunction():
        for tensor in tensors:
            if _has_storage(tensor):
                groups.setdefault(_identify_storage(tensor), []).append(tensor)
    return groups


def _has_storage(tensor: Tensor) -> bool:
    """Return whether a tensor has memory of its own: no tensor of vmap, and no sparse tensor."""
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return not is_wrapped and tensor.layout is torch.strided


def _identify_storage(tensor: Tensor) -> int:
    storage: Any = tensor.untyped_storage()
    return int(storage._cdata)


@functools.cache
def _list_written_arguments(func: Any) -> list[tuple[int, str]]:
    """Return the positions and names of the arguments that an operation writes into."""
    arguments = func._schema.arguments if hasattr(func, "_schema") else []
    return [
        (position, argument.name)
        for position, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
