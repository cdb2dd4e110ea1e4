"""Per-sample gradients of parameters without a rule, by vmap or else by a loop over samples.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from .._kernels.blocks import DenseBlock
from .._networks.batches import Inputs, list_tensors, map_tensors, slice_batch
from ..exceptions import is_out_of_memory
from .outputs import Select
from .parameters import find_real_shape, view_as_real

# Function that returns the raw outputs of a module, or of a function in its place, for a batch.
Call = Callable[[Callable[..., Any], Inputs], Any]


class Fallback:
    """Gradients as dense blocks, computed by vmap if torch can vectorise the network.

    Parameters
    ----------
    call : callable
        Function that returns the raw outputs of a module, or of a function in its place.
    select : callable
        Function that returns the compared outputs from the raw outputs.
    graph : bool
        Whether the gradients have an autograd graph, so that they can be differentiated.

    Attributes
    ----------
    loop : bool
        Whether the gradients are computed by a loop over samples.
    """

    def __init__(self, call: Call, select: Select, graph: bool = False):
        self.call = call
        self.select = select
        self.graph = graph
        self.loop = False
        self._has_called = False

    def block(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> DenseBlock:
        """Return the block of the named parameters; set ``loop`` if vmap fails."""
        gradients = None if self.loop else self._compute_by_vmap(module, names, inputs, targets)
        if gradients is None:
            self.loop = True
            gradients = self._compute_by_loop(module, names, inputs, targets)
        parameters = dict(module.named_parameters())
        layout = tuple((name, find_real_shape(parameters[name])) for name in names)
        return DenseBlock(layout, gradients)

    def _compute_by_vmap(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> Tensor | None:
        """Return the gradients, of shape (n, d, P), from one vectorised call; None if it fails."""
        # J(x_n) = d f(x_n; theta) / d theta, where f(x; theta) is a function of one sample without
        # a sample axis. jacrev differentiates f in theta, and vmap does so for all n at once.
        parameters = dict(module.named_parameters())
        values = {name: self._detach_unless_graph(parameters[name]) for name in names}
        names_by_path = _names_by_path(module, parameters, names)

        def compute_outputs(
            values: dict[str, Tensor], sample: Inputs, target: Tensor | None
        ) -> Tensor:
            substituted = {path: values[name] for path, name in names_by_path.items()}

            def forward(*args: Tensor, **kwargs: Tensor) -> object:
                return functional_call(module, substituted, args, kwargs, tie_weights=False)

            raw = self.call(forward, map_tensors(lambda tensor: tensor[None], sample))
            return self.select(raw, None if target is None else target[None])[0]

        if not self._has_called:
            # Tables that the network makes in its first call would else contain tensors of vmap.
            self.call(module, slice_batch(inputs, slice(0, 1)))
            self._has_called = True
        axes = (None, 0, None if targets is None else 0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                gradients = vmap(jacrev(compute_outputs), in_dims=axes)(values, inputs, targets)
        except Exception as error:
            # torch has no error class for operations that vmap does not support, and the network's
            # code may raise another one. The batch itself has been evaluated before, so the error
            # comes from vmap, or the loop raises it again.
            if is_out_of_memory(error):
                raise
            return None
        parts = [view_as_real(self._detach_unless_graph(gradients[name])) for name in names]
        parts = [part.flatten(2) for part in parts]
        return torch.cat(parts, dim=2)

    def _detach_unless_graph(self, tensor: Tensor) -> Tensor:
        """Return the tensor, detached unless the gradients have an autograd graph."""
        return tensor if self.graph else tensor.detach()

    def _compute_by_loop(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> Tensor:
        """Return the gradients, of shape (n, d, P): one backward pass per sample and output."""
        parameters = dict(module.named_parameters())
        compute = _compute_with_graph if self.graph else _compute_by_backward
        gradients = []
        for index in range(len(list_tensors(inputs)[0])):
            row = slice(index, index + 1)
            target = None if targets is None else targets[row]
            outputs = self.select(self.call(module, slice_batch(inputs, row)), target)[0]
            gradients.append(torch.stack([compute(o, parameters, names) for o in outputs]))
        return torch.stack(gradients)


def _names_by_path(
    module: nn.Module, parameters: dict[str, nn.Parameter], names: list[str]
) -> dict[str, str]:
    """Return the name of each parameter by its paths, one for each layer that owns it.

    A module that is registered twice counts once. With ``tie_weights=True``, functional_call finds
    tied parameters itself, but it does not restore the parameters of such a module.
    """
    selected = {id(parameters[name]): name for name in names}
    return {
        f"{path}.{local}".removeprefix("."): selected[id(parameter)]
        for path, layer in module.named_modules()
        for local, parameter in layer._parameters.items()
        if id(parameter) in selected
    }


def _compute_by_backward(
    output: Tensor, parameters: dict[str, nn.Parameter], names: list[str]
) -> Tensor:
    """Return one output's gradient, by backward, which reentrant checkpoints support."""
    if output.requires_grad:
        output.backward(retain_graph=True)
    gradient = torch.cat([_dense(parameters[name]).flatten() for name in names])
    for parameter in parameters.values():
        parameter.grad = None
    return gradient


def _compute_with_graph(
    output: Tensor, parameters: dict[str, nn.Parameter], names: list[str]
) -> Tensor:
    """Return one output's gradient with its autograd graph."""
    chosen = [parameters[name] for name in names]
    if not output.requires_grad:
        return torch.cat([view_as_real(torch.zeros_like(p)).flatten() for p in chosen])
    gradients = torch.autograd.grad(
        output, chosen, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([view_as_real(gradient).flatten() for gradient in gradients])


def _dense(parameter: nn.Parameter) -> Tensor:
    """Return the accumulated gradient of a parameter as a dense real tensor; None is zero."""
    if parameter.grad is None:
        return view_as_real(torch.zeros_like(parameter).detach())
    return view_as_real(parameter.grad.to_dense().detach())
