"""Detection of writes into tensors by a network's own code, before they happen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Writes(TorchDispatchMode):
    """Record of the writes into tensors inside the block, which are found by their memory.

    Operations on `detach`, `data` and views are recorded too, although they do not increase the
    version of a tensor. Before the first write into a kept tensor, its contents are copied.

    Parameters
    ----------
    kept : iterable of Tensor
        Tensors whose contents can be restored.
    watched : iterable of Tensor
        Other tensors.

    Attributes
    ----------
    saved : list of (Tensor, Tensor)
        Each kept tensor that was written into, with a copy of its contents before.
    wrote_watched : bool
        Whether one of the other tensors was written into.
    """

    # Operators that take functions, such as flex_attention, reach `__torch_dispatch__` as well.
    supports_higher_order_operators = True

    def __init__(self, kept: Iterable[Tensor], watched: Iterable[Tensor] = ()):
        super().__init__()
        self._kept = group_by_storage(kept)
        self._watched = {_identify_storage(t) for t in watched if _has_storage(t)}
        self.saved: list[tuple[Tensor, Tensor]] = []
        self.wrote_watched = False

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
        self.wrote_watched |= storage in self._watched
        for tensor in self._kept.pop(storage, ()):
            self.saved.append((tensor, tensor.detach().clone()))

    def restore(self) -> None:
        """Restore the contents of the kept tensors that were written into."""
        for tensor, contents in self.saved:
            # The version of the tensor stays, so that graphs of the user that contain it are valid.
            tensor.data.copy_(contents)


def group_by_storage(tensors: Iterable[Tensor]) -> dict[int, list[Tensor]]:
    """Return the tensors by the identity of their memory."""
    groups: dict[int, list[Tensor]] = {}
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


# Positions and names of the arguments that each operation writes into.
_written_arguments: dict[Any, list[tuple[int, str]]] = {}


def _list_written_arguments(func: Any) -> list[tuple[int, str]]:
    """Return the positions and names of the arguments that an operation writes into."""
    written = _written_arguments.get(func)
    if written is None:
        arguments = func._schema.arguments if hasattr(func, "_schema") else []
        written = [
            (position, argument.name)
            for position, argument in enumerate(arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        _written_arguments[func] = written
    return written
