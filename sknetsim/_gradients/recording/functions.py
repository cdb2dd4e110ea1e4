"""Properties of torch's functions: which work in place, select elements, or move samples."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...rules import find_function_rule

# Names of functions whose results consist of elements of their first argument, each at most once.
_SELECTIONS = frozenset(
    [
        *("T", "mT", "t", "transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims"),
        *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel"),
        *("squeeze", "unsqueeze", "roll", "flip", "rot90"),
        *("chunk", "split", "split_with_sizes", "tensor_split", "unbind", "narrow", "select"),
        *("__getitem__", "index_select", "take", "diagonal", "embedding"),
    ]
)

# Names of functions whose results have the elements of their first argument in another dtype or
# memory.
_CASTS = frozenset(
    ["to", "type_as", "type", "float", "double", "cpu", "cuda", "contiguous", "clone"]
)

# Names of functions whose results have the values of the first argument, and the form of others.
_FORMED = frozenset(["type_as", "to", "expand_as", "view_as", "reshape_as"])

# Names of functions whose results do not depend on the values of their arguments.
_NEW = frozenset(
    [
        *("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like"),
        *("full_like", "empty_like", "rand_like", "randn_like", "randint_like"),
    ]
)


# Names of properties of tensors that are tensors themselves.
_VIEWS = frozenset(["T", "mT", "H", "mH", "data", "real", "imag"])

# Names of methods of tensors that return no new tensor.
_QUESTIONS = frozenset(
    [
        *("dim", "ndimension", "size", "numel", "nelement", "stride", "is_contiguous", "__len__"),
        *("is_floating_point", "is_complex", "requires_grad_", "register_hook", "__hash__"),
    ]
)


@functools.cache
def returns_no_tensor(function: Any) -> bool:
    """Return whether a function only reads or sets an attribute that is no tensor."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        return find_name(function) not in _VIEWS
    return name == "__set__" or name in _QUESTIONS


def find_name(function: Any) -> str:
    """Return the name of a function; for a property of a tensor, the name of the property."""
    name: str = getattr(function, "__name__", "")
    if name == "__get__":
        return str(getattr(function.__self__, "__name__", ""))
    return name


def selects_elements(function: Any) -> bool:
    """Return whether results consist of elements of the first argument."""
    return find_name(function) in _SELECTIONS


def casts_elements(function: Any) -> bool:
    """Return whether results are the first argument in another dtype or memory."""
    return find_name(function) in _CASTS


def list_values(function: Any, tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors whose values the result of a function depends on."""
    name = find_name(function)
    if name in _NEW:
        return []
    return tensors[:1] if name in _FORMED else tensors


@functools.cache
def find_out_of_place(function: Any) -> Callable[..., Any] | None:
    """Return the function that computes the result of an in-place one; None for other functions."""
    name = find_name(function)
    if name == "__setitem__":
        return _set_items
    if name.startswith("__i") and name.endswith("__"):
        return getattr(Tensor, f"__{name[3:]}", None)
    if name.endswith("_") and not name.endswith("__"):
        return getattr(Tensor, name[:-1], None)
    return None


def _set_items(tensor: Tensor, index: Any, value: Any) -> Tensor:
    """Return a copy of a tensor in which some elements are replaced."""
    result = tensor.clone()
    result[index] = value
    return result


class _Globals(dict[str, Any]):
    """Globals of a module, as they are at each time, but with some replaced."""

    def __init__(self, names: dict[str, Any], replaced: dict[str, Any]):
        super().__init__(replaced)
        self._names = names

    def __missing__(self, name: str) -> Any:
        return self._names[name]


@functools.cache
def open_function(function: Any) -> Callable[..., Any] | None:
    """Return a function of torch, written in Python, as one whose inner calls can be recorded.

    It is None for other functions. Such a function calls itself again through the active mode
    before anything else. The result is the same function, but with other globals, by which it finds
    that no mode is active.
    """
    code, names = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if code is None or not names.get("__name__", "").startswith("torch."):
        return None
    checks = [name for name in code.co_names if name.startswith("has_torch_function")]
    if not checks:
        return None
    opened = types.FunctionType(
        code,
        _Globals(names, dict.fromkeys(checks, lambda *tensors: False)),
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


def find_permutation(function: Any, args: tuple[Any, ...], samples: int) -> Tensor | None:
    """Return the index by which a call permutes an axis of n elements; None if it does not."""
    name = find_name(function)
    if name == "index_select" and len(args) == 3:
        axis, index = args[1:]
    elif name == "__getitem__":
        axis, index = _find_indexed_axis(args[0], args[1])
    else:
        return None
    is_vector = isinstance(index, Tensor) and index.shape == (samples,)
    # An index of n elements may also select n of more positions, or look up rows of a table.
    if not is_vector or index.dtype != torch.int64 or args[0].shape[axis] != samples:
        return None
    index = index.detach()
    return index if torch.equal(index.sort().values.cpu(), torch.arange(samples)) else None


def _find_indexed_axis(tensor: Tensor, index: Any) -> tuple[int, Tensor | None]:
    """Return the axis that the only tensor of an index selects from, and this tensor."""
    parts = [p for p in index if p is not None] if isinstance(index, tuple) else [index]
    places = [place for place, part in enumerate(parts) if isinstance(part, Tensor)]
    if len(places) != 1:
        return 0, None
    has_ellipsis = any(part is Ellipsis for part in parts[: places[0]])
    return places[0] - len(parts) * has_ellipsis, parts[places[0]]


def name_arguments(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]:
    """Return the arguments of a call by name, and a function of such arguments.

    The names are those of the function's rule. Without a rule they are numbers, also of the
    elements of lists and other containers.
    """
    entry = find_function_rule(function)
    if entry is not None:
        names = entry.arguments[: len(args)]

        def evaluate_named(values: dict[str, Any]) -> Any:
            return function(
                *(values[name] for name in names), **{name: values[name] for name in kwargs}
            )

        return dict(zip(names, args, strict=False)) | kwargs, evaluate_named
    leaves, structure = tree_flatten((args, kwargs))
    numbers = [str(index) for index in range(len(leaves))]

    def evaluate(values: dict[str, Any]) -> Any:
        args, kwargs = tree_unflatten([values[number] for number in numbers], structure)
        return function(*args, **kwargs)

    return dict(zip(numbers, leaves, strict=True)), evaluate
