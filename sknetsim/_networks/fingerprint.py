"""Fingerprints of networks, samples and settings, computed from their contents.

A digest of a pickle is no alternative: pickles of equal objects may differ, and a pickle contains
only the name of a function.
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

# Packages whose classes and functions are identified by their names, because the versions of these
# packages are compared separately.
_INSTALLED = ("builtins", "copyreg", "numpy", "sklearn", "sknetsim", "skorch", "torch")

# Types of values that are digested by their repr.
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, np.generic)

# This package, whose modules may be renamed without a change of fingerprints.
_OWN = "sknetsim"

# Number of samples that are digested at a time.
_DIGESTED_SAMPLES = 1024

# Version of the format. Increase it if an attribute of a class of this package changes its meaning.
_FORMAT = 1

# Types of the members of a class that are digested.
_MEMBERS = (types.FunctionType, staticmethod, classmethod, property, *_PLAIN)


def fingerprint_value(value: Any) -> str:
    """Return the fingerprint of a network, a function, a setting, or a container of these.

    The fingerprint of a network covers the classes of its parts with their code, and their
    attributes: parameters, buffers, numbers, functions. It does not cover objects that the code
    refers to by a global name.

    Returns
    -------
    fingerprint : str
        32 hexadecimal digits, equal for equal contents in any process.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _iterate_content(value, set()):
        # With the lengths, ("ab", "c") and ("a", "bc") differ.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def fingerprint_samples(samples: Samples, dtype: torch.dtype) -> str:
    """Return the fingerprint of the samples: values cast to a dtype, shape and order."""
    shapes = map_tensors(_shape_of_row, samples.take(slice(0, 1)))
    return fingerprint_value((len(samples), shapes, b"".join(digest_samples(samples, dtype))))


def digest_samples(samples: Samples, dtype: torch.dtype) -> list[bytes]:
    """Return 16 bytes per sample, a digest of its values cast to a dtype."""
    digests: list[bytes] = []
    step = 1 if isinstance(samples.data, Dataset) else _DIGESTED_SAMPLES
    for rows in gen_batches(len(samples), step):
        inputs = samples.at(range(rows.start, rows.stop), rows)
        digests += _digest_rows(list_tensors(inputs), dtype)
    return digests


def _digest_rows(arrays: list[Tensor], dtype: torch.dtype) -> list[bytes]:
    """Return a digest of each row: two weighted sums of its 32-bit words.

    Two different rows have the same digest with a probability of at most 2^-66.
    """
    # digest[n,k] = sum_w words[n,w] r[w,k] modulo 2^64, k = 0, 1, with random 64-bit numbers r.
    words = np.hstack([_words(array.cpu(), dtype) for array in arrays])
    return (words @ _random_numbers(words.shape[1])).view("V16")[:, 0].tolist()


def _words(array: Tensor, dtype: torch.dtype) -> np.ndarray:
    """Return the 32-bit words of each row after the cast; integers stay int64 if it alters them."""
    cast = array.to(dtype) + 0.0  # -0.0 becomes 0.0.
    if not array.is_floating_point() and not torch.equal(cast.to(array.dtype), array):
        cast = array.long()
    flat = cast.reshape(len(array), -1).numpy()
    return np.ascontiguousarray(flat).view(np.uint32).astype(np.uint64)


@functools.lru_cache(maxsize=1)
def _random_numbers(count: int) -> np.ndarray:
    """Return two random 64-bit numbers for each of ``count`` words.

    They depend on the count, so that a row and the same row with zeros appended have different
    digests. Pickled digests require the same numbers in all versions of numpy, so RandomState is
    used.
    """
    return np.frombuffer(np.random.RandomState(count).bytes(16 * count), np.uint64).reshape(-1, 2)


def _shape_of_row(tensor: Tensor) -> Any:
    return tuple(tensor.shape[1:])


def _iterate_content(value: Any, seen: set[int]) -> Iterator[bytes | memoryview]:
    """Yield the names of the types and the bytes of the values, depth first.

    ``seen`` contains the ids of the enclosing objects. If an object is inside itself, only its type
    is yielded, so that cycles end.
    """
    yield type(value).__qualname__.encode()
    if isinstance(value, _PLAIN):
        yield repr(value).encode()
    elif isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        flat = value.detach().cpu().contiguous().flatten()
        yield flat.view(torch.uint8).numpy().data
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif id(value) not in seen:
        seen.add(id(value))
        parts = list(_list_parts(value))
        yield str(len(parts)).encode()
        for part in parts:
            yield from _iterate_content(part, seen)
        seen.discard(id(value))


def _list_parts(value: Any) -> Iterable[Any]:
    """Return the parts of a container, a function, a class, a module or another object."""
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    for kind, parts in _PARTS.items():
        if isinstance(value, kind):
            return parts(value)
    return _parts_of_object(value)


def _parts_of_function(function: types.FunctionType) -> list[Any]:
    if _is_installed(function):
        return [_module_identity(function.__module__), function.__qualname__]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__code__, function.__defaults__, function.__kwdefaults__, cells]


def _parts_of_class(kind: type) -> list[Any]:
    name = [_module_identity(kind.__module__), kind.__qualname__]
    if _is_installed(kind):
        return name
    members = {
        key: member for key, member in sorted(vars(kind).items()) if isinstance(member, _MEMBERS)
    }
    functions = {key: getattr(member, "__func__", member) for key, member in members.items()}
    return [*name, functions, *kind.__bases__]


def _is_installed(value: Any) -> bool:
    return _package(value.__module__) in _INSTALLED


def _module_identity(module: str | None) -> Any:
    """Return the name of a module, or a constant for all modules of this package.

    If a module of this package is renamed, feature stores and caches on disk stay valid.
    """
    return (_OWN, _FORMAT) if _package(module) == _OWN else module


def _package(module: str | None) -> str:
    return str(module).partition(".")[0]


def _parts_of_module(module: nn.Module) -> list[Any]:
    if isinstance(module, torch.jit.ScriptModule):
        return [str(module.inlined_graph), dict(module.state_dict())]
    # The mode is left out, because networks are always evaluated in eval mode.
    left_out = ("training", "_compiled_call_impl")
    attributes = sorted(vars(module).items())
    return [type(module), {name: value for name, value in attributes if name not in left_out}]


def _parts_of_object(value: Any) -> list[Any]:
    """Return the parts that a pickle would contain; none if the object cannot be pickled."""
    if isinstance(value, BaseEstimator):
        # skorch pickles its networks to bytes, which fails for a class without an importable name.
        return [type(value), vars(value)]
    try:
        reduced = value.__reduce_ex__(4)
    except (AttributeError, RuntimeError, TypeError, pickle.PicklingError):
        return []
    if isinstance(reduced, str):
        return [_module_identity(getattr(value, "__module__", None)), reduced]
    return [*reduced[:3], *(list(part) for part in reduced[3:5] if part is not None)]


_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    nn.Module: _parts_of_module,
    types.FunctionType: _parts_of_function,
    types.MethodType: lambda method: [method.__func__, method.__self__],
    types.CodeType: lambda code: [code.co_code, code.co_names, code.co_consts],
    property: lambda member: [member.fget],
    type: _parts_of_class,
}
