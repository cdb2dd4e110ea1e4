"""Registry of rules by type of layer.

Types must match exactly: a subclass may compute something else, so it does not inherit the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._kernels.blocks import Block
from .._kernels.layouts import Layout

#: A function of (module, inputs, cotangents, names), see `register_rule`.
Rule = Callable[[Any, Tensor, Tensor, "tuple[str, ...]"], "list[Block]"]


@dataclass(frozen=True)
class Entry:
    """Rule of a type of layer, and the names of all parameters that it applies to."""

    rule: Rule
    parameters: frozenset[str]


_registry: dict[type[nn.Module], Entry] = {}


def register_rule(
    *layer_types: type[nn.Module], parameters: Iterable[str] = ("weight", "bias")
) -> Callable[[Rule], Rule]:
    """Decorate a function that computes the per-sample gradients of a layer.

    Parameters
    ----------
    *layer_types : type
        The types of layers that the rule applies to. It does not apply to subclasses.
    parameters : iterable of str, default=("weight", "bias")
        Names of all parameters that the rule covers. The rule does not apply to a layer with
        other parameters of its own.

    Returns
    -------
    decorator : callable
        A decorator that registers and returns a function ``rule(module, inputs, cotangents,
        names)``, with these arguments:

        - ``module`` is the layer;
        - ``inputs``, of shape (n, ...), is the layer's first argument;
        - ``cotangents``, of shape (n, o, ...), are the gradients of the network's o outputs with
          respect to the layer's output;
        - ``names`` are the requested parameters, in the layer's order.

        The rule returns a list of blocks. Their layouts together contain each of ``names`` once.

    Notes
    -----
    Gradients of a layer without a rule are correct too, but slower. On the first chunk, the engine
    compares sums of the gradients of a rule with autograd. If they differ, the rule is not used on
    this network.

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
    """Return the rule of a layer, or None if it has no rule."""
    entry = _registry.get(type(module))
    # A method assigned to the instance replaces that of its type.
    if entry is None or "forward" in vars(module):
        return None
    return entry.rule if set(module._parameters.keys()) <= entry.parameters else None


def layout_of(module: nn.Module, names: Iterable[str]) -> Layout:
    """Return the layout of a block: the names of the parameters and their shapes."""
    return tuple((name, getattr(module, name).shape) for name in names)
