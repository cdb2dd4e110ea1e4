"""Per-sample gradients of parameters without a rule: torch.func, then a loop over samples.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from .._kernels.blocks import DenseBlock
from .._networks.batches import Inputs, list_tensors, map_tensors, slice_batch
from .._networks.network import Network
from ..exceptions import is_out_of_memory
from .outputs import Select


class Fallback:
    """Gradients written out, by vmap where that is possible.

    Parameters
    ----------
    network : Network
        How the module is called.
    select : callable
        The outputs compared.
    graph : bool
        Whether gradients have a graph, so that they can be differentiated again.

    Attributes
    ----------
    loop : bool
        Whether samples are gone through one by one.
    """

    def __init__(self, network: Network, select: Select, graph: bool = False):
        self.network = network
        self.select = select
        self.graph = graph
        self.loop = False

    def block(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> DenseBlock:
        """The block of the named parameters."""
        gradients = None if self.loop else self._by_vmap(module, names, inputs, targets)
        if gradients is None:
            self.loop = True
            gradients = self._by_loop(module, names, inputs, targets)
        parameters = dict(module.named_parameters())
        layout = tuple((name, parameters[name].shape) for name in names)
        return DenseBlock(layout, gradients)

    def _by_vmap(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> Tensor | None:
        parameters = dict(module.named_parameters())
        values = {name: self._kept(parameters[name]) for name in names}
        places = _places(module, parameters, names)

        def outputs(values: dict[str, Tensor], sample: Inputs, target: Tensor | None) -> Tensor:
            substituted = {place: values[name] for place, name in places.items()}

            def forward(*args: Tensor, **kwargs: Tensor) -> object:
                return functional_call(module, substituted, args, kwargs, tie_weights=False)

            raw = self.network.call(forward, map_tensors(lambda tensor: tensor[None], sample))
            return self.select(raw, None if target is None else target[None])[0]

        axes = (None, 0, None if targets is None else 0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                found = vmap(jacrev(outputs), in_dims=axes)(values, inputs, targets)
        except (RuntimeError, TypeError) as error:
            # torch has no common sign for what vmap cannot do. The batch itself has run before, so
            # the error is vmap's own, or else the slower way raises it again.
            if is_out_of_memory(error):
                raise
            return None
        return torch.cat([self._kept(found[name]).flatten(2) for name in names], dim=2)

    def _kept(self, tensor: Tensor) -> Tensor:
        return tensor if self.graph else tensor.detach()

    def _by_loop(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> Tensor:
        parameters = dict(module.named_parameters())
        gradient = _gradient_with_graph if self.graph else _gradient
        rows = []
        for index in range(len(list_tensors(inputs)[0])):
            row = slice(index, index + 1)
            target = None if targets is None else targets[row]
            outputs = self.select(self.network.call(module, slice_batch(inputs, row)), target)[0]
            rows.append(torch.stack([gradient(o, parameters, names) for o in outputs]))
        return torch.stack(rows)


def _places(
    module: nn.Module, parameters: dict[str, nn.Parameter], names: list[str]
) -> dict[str, str]:
    """Where each parameter stands, by its owner's path: once where a module has two paths.

    functional_call's own way with ties does not put back a module that is registered twice.
    """
    owned = {id(parameters[name]): name for name in names}
    return {
        f"{path}.{local}".removeprefix("."): owned[id(parameter)]
        for path, layer in module.named_modules()
        for local, parameter in layer._parameters.items()
        if id(parameter) in owned
    }


def _gradient(output: Tensor, parameters: dict[str, nn.Parameter], names: list[str]) -> Tensor:
    """One output's gradient, through backward: reentrant checkpoints refuse autograd.grad."""
    if output.requires_grad:
        output.backward(retain_graph=True)
    gradient = torch.cat([_dense(parameters[name]).flatten() for name in names])
    for parameter in parameters.values():
        parameter.grad = None
    return gradient


def _gradient_with_graph(
    output: Tensor, parameters: dict[str, nn.Parameter], names: list[str]
) -> Tensor:
    """One output's gradient, which can be differentiated again."""
    chosen = [parameters[name] for name in names]
    if not output.requires_grad:
        return torch.cat([torch.zeros_like(parameter).flatten() for parameter in chosen])
    found = torch.autograd.grad(
        output, chosen, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([gradient.flatten() for gradient in found])


def _dense(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros_like(parameter).detach()
    return parameter.grad.to_dense().detach()
