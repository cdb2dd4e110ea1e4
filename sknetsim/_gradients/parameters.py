"""Selected parameters, and the plan that assigns them to rules or to the fallback."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._kernels.layouts import Layout
from .._networks.modules import format_names, match_names
from ..exceptions import UnsupportedNetworkError
from ..rules import find_rule


@dataclass(frozen=True)
class Plan:
    """Assignment of the selected parameters to the rules of their layers, or to the fallback.

    Attributes
    ----------
    layout : tuple of (str, Size)
        All selected parameters, in the network's order.
    groups : dict of Module to list of tuple of str
        For each served layer, the local names of its parameters, one tuple for each block.
    names : dict of (Module, str) to str
        The network's name of each layer's parameter; for a tied parameter, its first name.
    unserved : list of str
        Names of the parameters that the fallback computes.
    """

    layout: Layout
    groups: dict[nn.Module, list[tuple[str, ...]]]
    names: dict[tuple[nn.Module, str], str]
    unserved: list[str]

    def served_names(self, layer: nn.Module) -> set[str]:
        """Return the network's names of the parameters that a layer's rule serves."""
        return {self.names[layer, local] for group in self.groups[layer] for local in group}

    @property
    def unserved_elements(self) -> int:
        """Number of elements of the parameters that no rule serves."""
        return sum(shape.numel() for name, shape in self.layout if name in self.unserved)


def make_plan(module: nn.Module, selected: set[str], refused: set[str]) -> Plan:
    """Return the plan: a parameter is served if each layer that owns it has a rule.

    Parameters
    ----------
    module : Module
        The network.
    selected : set of str
        Names of the parameters that the outputs are differentiated in.
    refused : set of str
        Names of the parameters that must not be served.
    """
    owners = _find_owners(module, selected)
    served = {
        name
        for name, layers in owners.items()
        if name not in refused and all(_has_rule(*owner) for owner in layers)
    }
    groups: dict[nn.Module, list[tuple[str, ...]]] = defaultdict(list)
    names = {owner: name for name, layers in owners.items() for owner in layers}
    for layer in module.modules():
        # The parameters of a ScriptModule can be iterated by ``items()`` only.
        own = [
            local for local, _ in layer._parameters.items() if names.get((layer, local)) in served
        ]
        tied = [local for local in own if len(owners[names[layer, local]]) > 1]
        # A tied parameter has its own block, to which the blocks of its other layers are added.
        groups[layer] += [(local,) for local in own] if tied else [tuple(own)] * bool(own)
    groups = {layer: tuples for layer, tuples in groups.items() if tuples}
    layout = tuple((n, find_real_shape(p)) for n, p in module.named_parameters() if n in selected)
    return Plan(layout, groups, names, [name for name in owners if name not in served])


def _has_rule(layer: nn.Module, local: str) -> bool:
    """Return whether a layer has a rule, and its parameter is real."""
    parameter = layer._parameters[local]
    return parameter is not None and not parameter.is_complex() and find_rule(layer) is not None


def is_differentiable(parameter: Tensor) -> bool:
    """Return whether a parameter can have a gradient: it has real or complex numbers."""
    return parameter.is_floating_point() or parameter.is_complex()


def view_as_real(gradient: Tensor) -> Tensor:
    """Return a gradient as real numbers; a last axis separates real and imaginary parts.

    The gradient of a real output f in z = a + i b is df/da + i df/db for autograd.
    """
    return torch.view_as_real(gradient.resolve_conj()) if gradient.is_complex() else gradient


def find_real_shape(parameter: Tensor) -> torch.Size:
    """Return the shape of a parameter's gradient as real numbers, see `view_as_real`."""
    return torch.Size([*parameter.shape, 2]) if parameter.is_complex() else parameter.shape


def _find_owners(module: nn.Module, selected: set[str]) -> dict[str, list[tuple[nn.Module, str]]]:
    """Return the owners of each selected parameter, (layer, local name), in the network's order."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    owners: dict[str, list[tuple[nn.Module, str]]] = {
        name: [] for name in names.values() if name in selected
    }
    for layer in module.modules():
        for local, parameter in layer._parameters.items():
            if parameter is not None and names[id(parameter)] in selected:
                owners[names[id(parameter)]].append((layer, local))
    return owners


def select_parameters(module: nn.Module, parameters: Any) -> set[str]:
    """Return the names of the trainable parameters that ``parameters`` selects.

    Parameters
    ----------
    module : Module
        The network.
    parameters : None, str, list of str or Module
        None for all; "last_layer"; names or patterns such as "head.*"; a part of the network.

    Returns
    -------
    names : set of str
        At least one name.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise UnsupportedNetworkError(
            "`estimator` must have a trainable parameter; got only parameters with"
            " requires_grad=False. Unfreeze those whose gradients should be compared."
        )
    selected = _match(module, trainable, parameters)
    if not selected:
        raise ValueError(
            "`parameters` must be None, 'last_layer', a part of the network, or names or patterns"
            f" that each match a trainable parameter, among {format_names(trainable)}; got"
            f" {parameters!r}. Use names of this list."
        )
    return selected


def _match(module: nn.Module, trainable: dict[str, nn.Parameter], parameters: Any) -> set[str]:
    """Return the names of the trainable parameters that ``parameters`` selects; possibly none."""
    if parameters is None:
        return set(trainable)
    if isinstance(parameters, nn.Module):
        ids = {id(parameter) for parameter in parameters.parameters()}
        return {name for name, parameter in trainable.items() if id(parameter) in ids}
    if isinstance(parameters, str) and parameters == "last_layer":
        layer = list(trainable)[-1].rpartition(".")[0]
        return {name for name in trainable if name.rpartition(".")[0] == layer}
    return match_names(trainable, parameters)
