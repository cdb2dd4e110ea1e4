"""Selected parameters, and gradients in complex ones as real numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._kernels.layouts import Layout
from .._networks.modules import format_names, match_names
from ..exceptions import UnsupportedNetworkError


def list_layout(parameters: Mapping[str, Tensor]) -> Layout:
    """Return the names of parameters, and the shapes of their gradients as real numbers."""
    return tuple((name, find_real_shape(parameter)) for name, parameter in parameters.items())


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
