"""Registry of rules by function, and by type of layer.

Types must match exactly: a subclass may compute something else, so it does not inherit the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from .._kernels.blocks import Block
from .._kernels.layouts import Layout

#: A function of (module, inputs, cotangents, names) or (arguments, cotangents, names), see
#: `register_rule`.
Rule = Callable[..., "list[Block]"]


@dataclass(frozen=True)
class Entry:
    """Rule of a function or of a type of layer.

    Attributes
    ----------
    rule : callable
        The rule.
    parameters : frozenset of str
        Names of the parameters, or of the arguments, that it applies to.
    arguments : tuple of str
        Names of the arguments of a function, in the order of its signature.
    rule_for_sums : callable or None
        Rule of a function that is tried first if its blocks need not keep their factors.
    """

    rule: Rule
    parameters: frozenset[str]
    arguments: tuple[str, ...] = ()
    rule_for_sums: Rule | None = None

    def apply(
        self, arguments: Mapping[str, Any], cotangents: Any, names: tuple[str, ...], factored: bool
    ) -> list[Block]:
        """Return the blocks of a function's rule, with factors or in a form for sums.

        The result is NotImplemented if the rule does not cover the arguments.
        """
        if self.rule_for_sums is not None and not factored:
            blocks = self.rule_for_sums(arguments, cotangents, names)
            if blocks is not NotImplemented:
                return blocks
        return self.rule(arguments, cotangents, names)


_layers: dict[type[nn.Module], Entry] = {}
_functions: dict[Any, Entry] = {}
_decompositions: dict[Any, Callable[..., Any]] = {}
_recurrences: dict[Any, Callable[..., Any]] = {}


def register_rule(
    *targets: Any, parameters: Iterable[str] = ("weight", "bias"), arguments: Iterable[str] = ()
) -> Callable[[Rule], Rule]:
    """Decorate a function that computes the per-sample gradients of a function or of a layer.

    Parameters
    ----------
    *targets : function of torch, or type of Module
        What the rule applies to: functions such as ``torch.nn.functional.linear`` or
        ``torch.Tensor.matmul``, or types of layers. It does not apply to subclasses of a type.
    parameters : iterable of str, default=("weight", "bias")
        Names of all parameters that the rule covers. The rule does not apply to a layer with
        other parameters of its own. For a function, these are names of arguments.
    arguments : iterable of str, default=()
        Names of a function's arguments, in the order of its signature. Layers have none.

    Returns
    -------
    decorator : callable
        A decorator that registers and returns a rule. The rule of a layer is a function
        ``rule(module, inputs, cotangents, names)``, with these arguments:

        - ``module`` is the layer;
        - ``inputs``, of shape (n, ...), is the layer's first argument;
        - ``cotangents``, of shape (n, o, ...), are the gradients of the network's o outputs with
          respect to the layer's output;
        - ``names`` are the requested parameters, in the layer's order.

        The rule of a function is a function ``rule(arguments, cotangents, names)``:

        - ``arguments`` is a dict of the function's arguments. Those in ``names`` are the
          parameters, or tensors that the network computes from parameters only. Tensors that
          differ between samples have the shape (n, ...), where ... is the shape in a batch of one
          sample. So the input of a linear layer on a batch (n, t, i) has the shape (n, 1, t, i).
          All other tensors, such as a frozen weight or a running mean, have their own shape;
        - ``cotangents``, of shape (n, o, ...), are those at the function's output, where ... is the
          shape of the output for a batch of one sample;
        - ``names`` are the requested arguments.

        A rule returns a list of blocks. Their layouts together contain each of ``names`` once. The
        rule of a function may return NotImplemented instead, for arguments that it does not cover.

    Raises
    ------
    TypeError
        If a target is neither a type of layer nor a function, or if ``arguments`` do not contain
        the ``parameters`` of a function.

    Notes
    -----
    Gradients of a layer or function without a rule are correct too, but slower. On the first chunk,
    the engine compares sums of the gradients of a rule with autograd. If they differ, the rule is
    not used on this network.

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
    entry = frozenset(parameters), tuple(arguments)
    for target in targets:
        _check_target(target, *entry)

    def decorate(rule: Rule) -> Rule:
        for target in targets:
            registry: dict[Any, Entry] = _layers if isinstance(target, type) else _functions
            registry[target] = Entry(rule, *entry)
        return rule

    return decorate


def _check_target(target: Any, parameters: frozenset[str], arguments: tuple[str, ...]) -> None:
    """Raise an error if a rule cannot be registered for a target."""
    is_layer = isinstance(target, type) and issubclass(target, nn.Module)
    if not is_layer and (isinstance(target, type | nn.Module) or not callable(target)):
        raise TypeError(
            "`targets` must be functions of torch or types of layers; got"
            f" {target!r}. Pass torch.nn.Linear or torch.nn.functional.linear, for example."
        )
    if not is_layer and not parameters <= set(arguments):
        raise TypeError(
            "`arguments` must be the names of the function's arguments, with those in `parameters`"
            f" ({', '.join(sorted(parameters))}); got {arguments}. Name all arguments in the order"
            " of its signature."
        )


def find_rule(module: nn.Module) -> Rule | None:
    """Return the rule of a type of layer, or None if it has none of its own."""
    entry = _layers.get(type(module))
    # A method assigned to the instance replaces that of its type.
    if entry is None or "forward" in vars(module):
        return None
    return entry.rule if set(module._parameters.keys()) <= entry.parameters else None


def has_rule(layer_type: type[nn.Module]) -> bool:
    """Return whether a type of layer has a rule, even if it does not apply to all its layers."""
    return layer_type in _layers


def find_function_rule(function: Any) -> Entry | None:
    """Return the rule of a function with the names of its arguments, or None if it has none."""
    return _functions.get(function)


def register_rule_for_sums(*functions: Any) -> Callable[[Rule], Rule]:
    """Decorate a rule of functions with rules that is faster if blocks need not keep their factors.

    Its blocks have no autograd graph. It may return NotImplemented; the other rule is applied then.
    """

    def decorate(rule: Rule) -> Rule:
        for function in functions:
            _functions[function] = replace(_functions[function], rule_for_sums=rule)
        return rule

    return decorate


def register_decomposition(*functions: Any) -> Callable[[Any], Any]:
    """Decorate a function that computes the same as others from functions with rules."""

    def decorate(decomposition: Any) -> Any:
        _decompositions.update(dict.fromkeys(functions, decomposition))
        return decomposition

    return decorate


def find_decomposition(function: Any) -> Callable[..., Any] | None:
    """Return the function that computes the same from functions with rules, or None."""
    return _decompositions.get(function)


def register_recurrence(*functions: Any) -> Callable[[Any], Any]:
    """Decorate a function ``f(record, *args)`` that computes the same as recurrent functions.

    It calls ``record(inputs, weight, bias, preactivations)`` for each linear layer, of which
    ``preactivations`` has the cotangents.
    """

    def decorate(recurrence: Any) -> Any:
        _recurrences.update(dict.fromkeys(functions, recurrence))
        return recurrence

    return decorate


def find_recurrence(function: Any) -> Callable[..., Any] | None:
    """Return the function of `register_recurrence`, or None."""
    return _recurrences.get(function)


def layout_of(owner: nn.Module | Mapping[str, Any], names: Iterable[str]) -> Layout:
    """Return the layout of a block: the names of the parameters and their shapes.

    The parameters are those of a layer, or the arguments of a function.
    """
    return tuple(
        (name, (owner[name] if isinstance(owner, Mapping) else getattr(owner, name)).shape)
        for name in names
    )
