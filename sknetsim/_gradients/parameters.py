"""Which parameters are differentiated, and which rule serves which of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from torch import nn

from .._kernels.layouts import Layout
from .._networks.network import match_names
from ..exceptions import UnsupportedNetworkError
from ..rules import find_rule


@dataclass(frozen=True)
class Plan:
    """Groups of parameters that a layer's rule serves, and the parameters that none serves.

    Attributes
    ----------
    layout : tuple of (str, Size)
        All selected parameters, in the network's order.
    groups : dict of Module to list of tuple of str
        For each served layer, its own names of the parameters, one tuple for each block.
    names : dict of (Module, str) to str
        The network's name of each layer's parameter (the first one, where tied).
    unserved : list of str
        Names left to the fallback.
    """

    layout: Layout
    groups: dict[nn.Module, list[tuple[str, ...]]]
    names: dict[tuple[nn.Module, str], str]
    unserved: list[str]

    def served(self, layer: nn.Module) -> set[str]:
        """The network's names of what is served in a layer."""
        return {self.names[layer, local] for group in self.groups[layer] for local in group}

    @property
    def unserved_elements(self) -> int:
        """Numbers in the parameters that no rule serves."""
        return sum(shape.numel() for name, shape in self.layout if name in self.unserved)


def make_plan(module: nn.Module, selected: set[str], refused: set[str]) -> Plan:
    """Serve each selected parameter by rules where all layers that own it have one."""
    owners = _owners(module, selected)
    served = {
        name
        for name, found in owners.items()
        if name not in refused and all(find_rule(layer) for layer, _ in found)
    }
    groups: dict[nn.Module, list[tuple[str, ...]]] = defaultdict(list)
    names = {owner: name for name, found in owners.items() for owner in found}
    for layer in module.modules():
        own = [
            local for local, _ in layer._parameters.items() if names.get((layer, local)) in served
        ]
        tied = [local for local in own if len(owners[names[layer, local]]) > 1]
        # A tied parameter gets a block of its own, which can be added to the other layers'.
        groups[layer] += [(local,) for local in own] if tied else [tuple(own)] * bool(own)
    groups = {layer: found for layer, found in groups.items() if found}
    layout = tuple((n, p.shape) for n, p in module.named_parameters() if n in selected)
    return Plan(layout, groups, names, [name for name in owners if name not in served])


def _owners(module: nn.Module, selected: set[str]) -> dict[str, list[tuple[nn.Module, str]]]:
    """The layers that own each selected parameter, in the network's order."""
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
    """Names of the trainable parameters asked for.

    Parameters
    ----------
    module : Module
        The network.
    parameters : None, str, list of str or Module
        None: all; "last_layer"; names or patterns such as "head.*"; a part of the network.

    Returns
    -------
    names : set of str
        At least one.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise UnsupportedNetworkError(
            "estimator has no trainable parameter (all have requires_grad=False); at least one is"
            " needed: unfreeze those whose gradients are to be compared."
        )
    selected = _matching(module, trainable, parameters)
    if not selected:
        raise ValueError(
            f"parameters is {parameters!r}, of which something matches no trainable"
            " parameter; allowed are None, 'last_layer', a part of the network, and names or"
            " patterns among"
            f" {', '.join(list(trainable)[:20])}."
        )
    return selected


def _matching(module: nn.Module, trainable: dict[str, nn.Parameter], parameters: Any) -> set[str]:
    if parameters is None:
        return set(trainable)
    if isinstance(parameters, nn.Module):
        wanted = {id(parameter) for parameter in parameters.parameters()}
        return {name for name, parameter in trainable.items() if id(parameter) in wanted}
    if isinstance(parameters, str) and parameters == "last_layer":
        layer = list(trainable)[-1].rpartition(".")[0]
        return {name for name in trainable if name.rpartition(".")[0] == layer}
    return match_names(trainable, parameters)
