"""Which layer has which rule: exact types only, so that a subclass is never mis-served."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._kernels.blocks import Block
from .._kernels.layouts import Layout

Rule = Callable[[Any, Tensor, Tensor, "tuple[str, ...]"], "list[Block]"]


@dataclass(frozen=True)
class Entry:
    """A rule and the parameters that its layers may have."""

    rule: Rule
    parameters: frozenset[str]


_registry: dict[type[nn.Module], Entry] = {}


def register_rule(
    *layer_types: type[nn.Module], parameters: Iterable[str] = ("weight", "bias")
) -> Callable[[Rule], Rule]:
    """Decorate a function that gives the per-sample gradients of a layer.

    Parameters
    ----------
    *layer_types : type
        The layers; subclasses are not served.
    parameters : iterable of str, default=("weight", "bias")
        All parameters that such a layer may own. A layer with others is not served.

    Returns
    -------
    decorator : callable
        It registers and returns a function ``rule(module, inputs, cotangents, names)``.
        ``inputs``, of shape (n, ...), is the layer's first argument; ``cotangents``, of shape
        (n, o, ...), the gradients of the network's o outputs in the layer's output; ``names``
        the parameters asked for, in the layer's order. It returns blocks whose layouts together
        name each of ``names`` once.

    Notes
    -----
    A layer without a rule is right too, only slower. A rule that is wrong on a network (the
    engine compares its sums with autograd's on the first chunk) is not used there.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.rules import DenseBlock, register_rule, layout_of
    >>> class Scale(torch.nn.Module):
    ...     def __init__(self, n_features):
    ...         super().__init__()
    ...         self.weight = torch.nn.Parameter(torch.ones(n_features))
    ...     def forward(self, inputs):
    ...         return self.weight * inputs
    >>> @register_rule(Scale, parameters=["weight"])
    ... def scale(module, inputs, cotangents, names):
    ...     return [DenseBlock(layout_of(module, names), cotangents * inputs[:, None])]
    """

    def decorate(rule: Rule) -> Rule:
        for layer_type in layer_types:
            _registry[layer_type] = Entry(rule, frozenset(parameters))
        return rule

    return decorate


def find_rule(module: nn.Module) -> Rule | None:
    """The rule of a layer, or None where it has none."""
    entry = _registry.get(type(module))
    if entry is None or "forward" in vars(module):
        return None
    return entry.rule if set(module._parameters.keys()) <= entry.parameters else None


def layout_of(module: nn.Module, names: Iterable[str]) -> Layout:
    """The layout of a block: the parameters' names with their shapes."""
    return tuple((name, getattr(module, name).shape) for name in names)
