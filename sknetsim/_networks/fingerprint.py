"""Fingerprints of networks, samples and settings, computed from their contents.

A digest of a pickle is no alternative: pickles of equal objects may differ, and a pickle contains
only the name of a function.
"""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .batches import list_tensors, map_tensors
from .object_state import OWN, get_module_identity, get_package, list_parts
from .samples import Samples

# Packages whose classes and functions are identified by their names, because the versions of these
# packages are compared separately.
_INSTALLED = ("builtins", "copyreg", "numpy", "sklearn", "sknetsim", "skorch", "torch")

# Attributes of a code object that determine what it computes. Its file, its lines and its qualified
# name do not.
_CODE = ["code", "exceptiontable", "names", "consts", "varnames", "flags"]
_CODE += ["argcount", "posonlyargcount", "kwonlyargcount"]

# Functions in a class; members with names such as __init__ are digested only if they are of these
# types, because Python adds many others.
_FUNCTIONS = (types.FunctionType, staticmethod, classmethod, property)

# Other members that Python adds to a class, and that a pickle by value leaves out.
_ADDED = ("_abc_impl", "__annotate__", "__annotate_func__")

# Types of values that are digested by their repr.
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, np.generic)

# Number of samples that are digested at a time.
_DIGESTED_SAMPLES = 1024


def fingerprint_value(value: Any) -> str:
    """Return the fingerprint of a network, a function, a setting, or a container of these.

    The fingerprint of a network covers the classes of its parts with their code, and their
    attributes: parameters, buffers, numbers, functions. It covers which parameters are shared. It
    does not cover objects that the code refers to by a global name.

    A class or function is identified by its content, not by the function that made it, so a copy
    has the same fingerprint even if it was pickled by value.

    Returns
    -------
    fingerprint : str
        32 hexadecimal digits, equal for equal contents in any process.
    """
    return _Digester({}, set()).digest(value).hex()


def fingerprint_samples(samples: Samples, dtype: torch.dtype) -> str:
    """Return the fingerprint of the samples: values cast to a dtype, shape and order."""
    shapes = map_tensors(_shape_of_row, samples.take_alone(0))
    return fingerprint_value((len(samples), shapes, b"".join(digest_samples(samples, dtype))))


def digest_samples(samples: Samples, dtype: torch.dtype) -> list[bytes]:
    """Return a digest of each sample: 16 bytes for its values cast to a dtype, 16 for its label.

    Equal samples with different labels have different digests.
    """
    batches = samples.iterate_independent(_DIGESTED_SAMPLES)
    digests = [digest for part in batches for digest in _digest_rows(list_tensors(part), dtype)]
    if samples.labels is None:
        return digests
    labels = _digest_rows([samples.labels], torch.float64)
    return [digest + label for digest, label in zip(digests, labels, strict=True)]


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
    cast[cast.isnan()] = torch.nan  # NaN has many bit patterns.
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


class _Digester:
    """Digest of a value and all its parts, which are visited depth first.

    Parameters
    ----------
    classes : dict of type to bytes
        Digests of the classes visited so far.
    enclosing : set of int
        The ids of the objects that contain the visited part. If an object is inside itself, only
        its type is digested, so that cycles end.
    """

    def __init__(self, classes: dict[type, bytes], enclosing: set[int]):
        self._classes = classes
        self._enclosing = enclosing
        # Each parameter by its id, with its position. It is kept, so that no id is used again.
        self._parameters: dict[int, tuple[int, nn.Parameter]] = {}

    def digest(self, value: Any) -> bytes:
        """Return the digest of a value."""
        content = hashlib.blake2b(digest_size=16)

        def write(part: bytes | memoryview) -> None:
            # With the lengths, ("ab", "c") and ("a", "bc") differ.
            content.update(len(part).to_bytes(8, "little"))
            content.update(part)

        self._visit(value, write)
        return content.digest()

    def _visit(self, value: Any, write: Callable[[bytes | memoryview], None]) -> None:
        """Write the names of the types and the bytes of the values."""
        if isinstance(value, np.memmap):
            value = np.asarray(value)
        write(_get_type_name(value).encode())
        if isinstance(value, _PLAIN):
            write(repr(value).encode())
        elif isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized:
            self._visit_tensor(value, write)
        elif type(value) is np.ndarray and not value.dtype.hasobject:
            write(f"{value.dtype} {value.shape}".encode())
            write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        elif id(value) not in self._enclosing:
            self._enclosing.add(id(value))
            self._visit_parts(value, write)
            self._enclosing.discard(id(value))

    def _visit_tensor(self, value: Tensor, write: Callable[[bytes | memoryview], None]) -> None:
        """Write the bytes of a tensor; of a shared parameter, its position from then on."""
        if isinstance(value, nn.Parameter):
            count = len(self._parameters)
            position, _ = self._parameters.setdefault(id(value), (count, value))
            write(str(position).encode())
            if position < count:
                return
        write(f"{value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
        write(flat.view(torch.uint8).numpy().data)

    def _visit_parts(self, value: Any, write: Callable[[bytes | memoryview], None]) -> None:
        """Write the parts of a container, a class, or another object."""
        if isinstance(value, set | frozenset):
            # The order of a set differs between processes, so no part may depend on another one.
            alone = [_Digester({**self._classes}, self._enclosing).digest(part) for part in value]
            for digest in sorted(alone):
                write(digest)
        elif isinstance(value, type):
            if value not in self._classes:
                self._classes[value] = self._digest_alone(self._list_parts_of_class(value))
            write(self._classes[value])
        else:
            parts = list(_list_parts(value))
            write(str(len(parts)).encode())
            for part in parts:
                self._visit(part, write)

    def _list_parts_of_class(self, kind: type) -> list[Any]:
        """Return the name of a class; unless it is installed, also its new members and its bases.

        A pickle by value leaves out members that are those of a base class.
        """
        if _is_installed(kind):
            return [get_module_identity(kind.__module__), kind.__qualname__]
        inherited: dict[str, Any] = dict(collections.ChainMap(*map(_list_members, kind.__bases__)))
        digests = {}
        for name, member in sorted(_list_members(kind).items()):
            digests[name] = self._digest_alone(member)
            if name in inherited and digests[name] == self._digest_alone(inherited[name]):
                del digests[name]
        return [get_module_identity(kind.__module__), kind.__name__, digests, *kind.__bases__]

    def _digest_alone(self, value: Any) -> bytes:
        """Return a digest that does not depend on the parameters visited before."""
        return _Digester(self._classes, self._enclosing).digest(value)


def _get_type_name(value: Any) -> str:
    """Return the name of a type that remains in a pickle by value; its qualified name does not."""
    kind = torch.fx.GraphModule if isinstance(value, torch.fx.GraphModule) else type(value)
    return kind.__name__


def _list_parts(value: Any) -> Iterable[Any]:
    """Return the parts of a container, a function, a module or another object."""
    if type(value) in (dict, collections.OrderedDict, types.MappingProxyType):
        return [part for item in value.items() for part in item]
    if type(value) in (list, tuple):
        return value
    for kind, parts in _PARTS.items():
        if isinstance(value, kind):
            return parts(value)
    return list_parts(value)


def _parts_of_function(function: types.FunctionType) -> list[Any]:
    if _is_installed(function):
        return [get_module_identity(function.__module__), function.__qualname__]
    cells = [_contents(cell) for cell in function.__closure__ or ()]
    return [function.__code__, function.__defaults__, function.__kwdefaults__, cells]


def _contents(cell: types.CellType) -> list[Any]:
    """Return the contents of a variable of a closure; no contents before its first assignment."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _list_members(kind: type) -> dict[str, Any]:
    """Return the members of a class, except those that Python adds."""
    members = {name: member for name, member in vars(kind).items() if _is_digested(name, member)}
    if isinstance(kind, enum.EnumMeta):
        # The values replace the members, which contain the class.
        methods = {name: members[name] for name in members if not name.startswith("_")}
        for name in kind.__members__:
            methods[name] = kind.__members__[name].value
        return methods
    return members


def _is_digested(name: str, member: Any) -> bool:
    if isinstance(member, types.MemberDescriptorType) or name in _ADDED:
        return False
    special = name.startswith("__") and name.endswith("__")
    return not special or isinstance(member, _FUNCTIONS)


def _is_installed(value: Any) -> bool:
    """Return whether the name of a class or function identifies it, in an installed package."""
    package, names = get_package(value.__module__), value.__qualname__.split(".")
    if package not in _INSTALLED or "<locals>" in names:
        return False
    module = sys.modules.get(value.__module__)
    return package == OWN or functools.reduce(_get_part, names, module) is value


def _get_part(value: Any, name: str) -> Any:
    return getattr(value, name, None)


def _parts_of_module(module: nn.Module) -> list[Any]:
    return [type(module), _list_attributes(module)]


def _list_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module without its mode: networks are evaluated in eval mode."""
    left_out = ("training", "_compiled_call_impl")
    attributes = {name: vars(module)[name] for name in sorted(vars(module)) if name not in left_out}
    hooks = {name: value for name, value in attributes.items() if _contains_hooks(name, value)}
    # The id of a hook counts the hooks of the process, so only the order of the ids is digested.
    order = {key: rank for rank, key in enumerate(sorted(set().union(*hooks.values())))}
    for name, value in hooks.items():
        attributes[name] = {order[key]: hook for key, hook in value.items()}
    return attributes


def _contains_hooks(name: str, value: Any) -> bool:
    """Return whether an attribute of a module contains hooks by their ids."""
    return "_hooks" in name and isinstance(value, dict) and all(type(key) is int for key in value)


def _parts_of_graph(module: torch.fx.GraphModule) -> list[Any]:
    """Return the code of a traced network and what it uses, but not the class, which is its own."""
    nodes = list(module.graph.nodes)
    functions = [node.target for node in nodes if node.op == "call_function"]
    read = [node.target.split(".") for node in nodes if node.op == "get_attr"]
    constants = [functools.reduce(_get_part, names, module) for names in read]
    own = vars(nn.Module())
    attributes = {name: value for name, value in _list_attributes(module).items() if name in own}
    return [module.code, functions, constants, attributes]


def _parts_of_script(module: torch.jit.ScriptModule) -> list[Any]:
    """Return the graph, the state, and the other attributes that the graph reads."""
    # Numbers in the names of classes count the scripts of the process.
    graph = re.sub(r"\.___torch_mangle_\d+", "", _format_graph(module.inlined_graph))
    names = sorted(set(re.findall(r'prim::GetAttr\[name="(\w+)"\]', graph)))
    read = [getattr(part, name, None) for part in module.modules() for name in names]
    values = [value for value in read if not isinstance(value, nn.Module | Tensor)]
    return [graph, dict(module.state_dict()), values]


def _format_graph(graph: Any) -> str:
    """Return the text of a graph without the lines of the source."""
    return str(graph.str(False))


_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    torch.fx.GraphModule: _parts_of_graph,
    torch.jit.ScriptModule: _parts_of_script,
    nn.Module: _parts_of_module,
    types.FunctionType: _parts_of_function,
    types.MethodType: lambda method: [method.__func__, method.__self__],
    types.CodeType: lambda code: [getattr(code, f"co_{name}") for name in _CODE],
    types.ModuleType: lambda module: [module.__name__],
    property: lambda member: [member.fget, member.fset, member.fdel],
    staticmethod: lambda member: [member.__func__],
    classmethod: lambda member: [member.__func__],
    # Python makes the attributes of a partial function when they are first read.
    functools.partial: lambda p: [type(p), p.func, p.args, p.keywords, vars(p)],
    functools.cached_property: lambda member: [member.func],
    # Functions with a cache, whose qualified name a pickle by value changes.
    type(functools.cache(len)): lambda function: [function.__wrapped__],
}
