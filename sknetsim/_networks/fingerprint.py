"""What identifies networks, rows and settings: digests of what they consist of, never of objects.

Pickles would not do: two of equal objects differ, and functions are in them by name only.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import gen_batches
from torch import Tensor, nn
from torch.utils.data import Dataset

from .batches import list_tensors, map_tensors
from .samples import Samples

# Whose classes and functions are known by their names, for their versions are in the key.
_INSTALLED = ("builtins", "copyreg", "numpy", "sklearn", "sknetsim", "skorch", "torch")

_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, np.generic)

_OWN = "sknetsim"

# Samples that are digested at a time.
_DIGEST_ROWS = 1024

# Raised when an attribute of one of this package's classes changes its meaning.
_FORMAT = 1

# What of a class is looked at.
_MEMBERS = (types.FunctionType, staticmethod, classmethod, property, *_PLAIN)


def fingerprint_value(value: Any) -> str:
    """A network, a function, a setting or anything made of such, by its content.

    A network is the classes of its parts with their code, and all that they hold: parameters,
    buffers, numbers, functions. What code finds under a global name is not looked at.
    """
    found = hashlib.blake2b(digest_size=16)
    for part in _content(value, set()):
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()


def fingerprint_samples(samples: Samples, dtype: torch.dtype) -> str:
    """Return a fingerprint of the samples' values, cast to a dtype, their shape and their order."""
    shapes = map_tensors(_shape_of_row, samples.take(slice(0, 1)))
    return fingerprint_value((len(samples), shapes, b"".join(digest_samples(samples, dtype))))


def digest_samples(samples: Samples, dtype: torch.dtype) -> list[bytes]:
    """Return a digest of 16 bytes of each sample's values, cast to a dtype."""
    digests: list[bytes] = []
    step = 1 if isinstance(samples.data, Dataset) else _DIGEST_ROWS
    for rows in gen_batches(len(samples), step):
        inputs = samples.at(range(rows.start, rows.stop), rows)
        digests += _digest_rows(list_tensors(inputs), dtype)
    return digests


def _digest_rows(arrays: list[Tensor], dtype: torch.dtype) -> list[bytes]:
    """Return two sums of each row's 32-bit words, times random 64-bit numbers, modulo 2^64.

    Two different rows have the same digest with a probability of at most 2^-66.
    """
    words = np.hstack([_words(array.cpu(), dtype) for array in arrays])
    return (words @ _random_numbers(words.shape[1])).view("V16")[:, 0].tolist()


def _words(array: Tensor, dtype: torch.dtype) -> np.ndarray:
    """Return the 32-bit words of each row after the cast; integers that it alters are not cast."""
    cast = array.to(dtype) + 0.0  # -0.0 becomes 0.0.
    if not array.is_floating_point() and not torch.equal(cast.to(array.dtype), array):
        cast = array.long()
    flat = cast.reshape(len(array), -1).numpy()
    return np.ascontiguousarray(flat).view(np.uint32).astype(np.uint64)


@functools.lru_cache(maxsize=1)
def _random_numbers(count: int) -> np.ndarray:
    """Return two numbers per word; they depend on the count, so that a longer row differs.

    They are the same in all versions of numpy, because digests are pickled.
    """
    return np.frombuffer(np.random.RandomState(count).bytes(16 * count), np.uint64).reshape(-1, 2)


def _shape_of_row(tensor: Tensor) -> Any:
    return tuple(tensor.shape[1:])


def _content(value: Any, seen: set[int]) -> Iterator[bytes | memoryview]:
    """Names of types and bytes of values, in an order of their own; cycles end."""
    yield type(value).__qualname__.encode()
    if isinstance(value, _PLAIN):
        yield repr(value).encode()
    elif isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        plain = value.detach().cpu().contiguous().flatten()
        yield plain.view(torch.uint8).numpy().data
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif id(value) not in seen:
        seen.add(id(value))
        parts = list(_parts(value))
        yield str(len(parts)).encode()
        for part in parts:
            yield from _content(part, seen)
        seen.discard(id(value))


def _parts(value: Any) -> Iterable[Any]:
    """What something consists of."""
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    for kind, parts in _PARTS.items():
        if isinstance(value, kind):
            return parts(value)
    return _reduced(value)


def _parts_of_function(function: types.FunctionType) -> list[Any]:
    if _is_installed(function):
        return [_stable(function.__module__), function.__qualname__]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__code__, function.__defaults__, function.__kwdefaults__, cells]


def _parts_of_class(kind: type) -> list[Any]:
    name = [_stable(kind.__module__), kind.__qualname__]
    if _is_installed(kind):
        return name
    members = {
        key: member for key, member in sorted(vars(kind).items()) if isinstance(member, _MEMBERS)
    }
    functions = {key: getattr(member, "__func__", member) for key, member in members.items()}
    return [*name, functions, *kind.__bases__]


def _is_installed(value: Any) -> bool:
    return _package(value.__module__) in _INSTALLED


def _stable(module: str | None) -> Any:
    """Return what identifies a module, even after one of this package was renamed.

    Feature stores and caches on disk must outlive such a move.
    """
    return (_OWN, _FORMAT) if _package(module) == _OWN else module


def _package(module: str | None) -> str:
    return str(module).partition(".")[0]


def _parts_of_module(module: nn.Module) -> list[Any]:
    """Its mode says nothing of a network that is always evaluated."""
    if isinstance(module, torch.jit.ScriptModule):
        return [str(module.inlined_graph), dict(module.state_dict())]
    left_out = ("training", "_compiled_call_impl")
    attributes = sorted(vars(module).items())
    return [type(module), {name: value for name, value in attributes if name not in left_out}]


def _reduced(value: Any) -> list[Any]:
    """What a pickle would hold; an object that cannot be taken apart counts by its type."""
    if isinstance(value, BaseEstimator):
        # A pickle would hold a skorch net's networks as bytes, which fails where it knows no name.
        return [type(value), vars(value)]
    try:
        reduced = value.__reduce_ex__(4)
    except (AttributeError, RuntimeError, TypeError, pickle.PicklingError):
        return []
    if isinstance(reduced, str):
        return [_stable(getattr(value, "__module__", None)), reduced]
    return [*reduced[:3], *(list(part) for part in reduced[3:5] if part is not None)]


_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    nn.Module: _parts_of_module,
    types.FunctionType: _parts_of_function,
    types.MethodType: lambda method: [method.__func__, method.__self__],
    types.CodeType: lambda code: [code.co_code, code.co_names, code.co_consts],
    property: lambda member: [member.fget],
    type: _parts_of_class,
}
