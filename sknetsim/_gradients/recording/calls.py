"""Calls of functions with parameters in a forward pass, and the tensors behind them.

Index legend: n samples.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from ..._networks.batches import Inputs, list_tensors
from .functions import find_name


@dataclass(eq=False)
class Origin:
    """A parameter, or a tensor that a forward pass derives from parameters.

    Attributes
    ----------
    tensor : Tensor
        The tensor.
    name : str or None
        Name of the parameter; None for a derived tensor.
    parents : list of Origin
        Sources that a derived tensor was computed from; empty for a parameter.
    select : callable or None
        Function that returns the same elements of another tensor in the place of the parent's, if
        a derived tensor consists of elements of its only parent.
    decomposed : tuple of (callable, tuple) or None
        The function with a decomposition that returned a derived tensor, and its arguments.
    """

    tensor: Tensor
    name: str | None = None
    parents: list[Origin] = field(default_factory=list)
    select: Callable[[Tensor], Tensor] | None = None
    decomposed: tuple[Any, tuple[Any, ...]] | None = None

    def find_parameters(self) -> dict[str, Tensor]:
        """Return the parameters that the tensor is computed from, by name."""
        if self.name is not None:
            return {self.name: self.tensor}
        return find_parameters(self.parents)


def find_parameters(sources: Iterable[Origin]) -> dict[str, Tensor]:
    """Return the parameters that some tensors are computed from, by name."""
    return {n: tensor for source in sources for n, tensor in source.find_parameters().items()}


@dataclass(eq=False)
class Call:
    """One call of a function, or of a layer with a rule of its own.

    Attributes
    ----------
    function : callable or Module
        The function or the layer.
    arguments : dict of str to object
        Its arguments by name. Functions without a rule have numbered arguments.
    sources : dict of str to Origin
        The arguments that are parameters or derived tensors.
    output_shapes : list of Size
        Shapes of the tensors that it returns.
    edges : list of (GradientEdge or None)
        Places of these tensors in the autograd graph; None if they require no gradient.
    derived : list of Origin
        These tensors as sources, if they may be derived from parameters only.
    versions : dict of str to int
        Versions of the tensors among the arguments; each in-place operation increases it.
    evaluate : callable or None
        Function that returns the output for other values of the arguments.
    order : Tensor or None
        Sample at each position along the axis of the samples; None for 0, 1, 2, ...
    recurrence : callable or None
        The recurrent function of torch that the call is a part of.
    """

    function: Any
    arguments: dict[str, Any]
    sources: dict[str, Origin]
    output_shapes: list[torch.Size]
    edges: list[GradientEdge | None]
    derived: list[Origin]
    versions: dict[str, int]
    evaluate: Callable[[dict[str, Any]], Any] | None = None
    order: Tensor | None = None
    recurrence: Any = None

    @property
    def name(self) -> str:
        """Name of the function, or of the type of the layer."""
        if isinstance(self.function, nn.Module):
            return type(self.function).__name__
        return find_name(self.function if self.recurrence is None else self.recurrence)

    @property
    def is_current(self) -> bool:
        """True if no in-place operation has changed an argument since the call."""
        return all(
            read_version(self.arguments[name]) == version for name, version in self.versions.items()
        )

    def parameter_names(self) -> set[str]:
        """Return the names of all parameters behind the arguments."""
        return set(find_parameters(self.sources.values()))


def read_version(tensor: Tensor) -> int:
    """Return the version of a tensor; 0 for a tensor of inference mode, which has none."""
    return 0 if tensor.is_inference() else tensor._version


def list_tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among some values, also inside lists, tuples and dicts."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif value.__class__ not in _ATOMS and isinstance(value, (list, tuple, dict)):
            parts = value.values() if isinstance(value, dict) else value
            tensors += list_tensors_in(parts)
    return tensors


# Types of arguments that contain no tensors; most others are tensors.
_ATOMS = frozenset([int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size])


class TensorMap:
    """Values by tensor, for tensors that exist: they are kept no longer than by others."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Any]] = {}

    def __setitem__(self, tensor: Tensor, value: Any) -> None:
        key, entries = id(tensor), self._entries

        def remove(reference: Any) -> None:
            if key in entries and entries[key][0] is reference:
                del entries[key]

        entries[key] = weakref.ref(tensor, remove), value

    def list_values(self, tensors: Iterable[Tensor]) -> list[Any]:
        """Return the values of those tensors that have one."""
        return [self._entries[id(t)][1] for t in tensors if id(t) in self._entries]


@dataclass(eq=False)
class Tape:
    """The recorded calls of a forward pass.

    Attributes
    ----------
    module : Module
        The network.
    names : set of str
        Names of the parameters whose calls are recorded.
    inputs : Inputs
        The batch that the network is called on.
    calls : list of Call
        The calls, in order.
    dtypes : set of dtype
        Floating-point dtypes of the results that depend on the samples or on parameters.
    """

    module: nn.Module
    names: set[str]
    inputs: Inputs
    calls: list[Call] = field(default_factory=list)
    dtypes: set[torch.dtype] = field(default_factory=set)

    @property
    def samples(self) -> int:
        """Number of samples of the batch."""
        return len(list_tensors(self.inputs)[0])

    @functools.cached_property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name, in the network's order."""
        return {name: p for name, p in self.module.named_parameters() if name in self.names}
