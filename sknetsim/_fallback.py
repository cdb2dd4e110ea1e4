"""Per-sample gradients of parameters without a rule: torch.func, then a loop over samples.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from ._blocks import DenseBlock
from ._inputs import Inputs, map_tensors
from ._network import Network
from ._outputs import Select


def means_cannot(error: RuntimeError) -> bool:
    """Whether an error under vmap leaves the slower way open: any but out of memory.

    torch has no common sign for what vmap cannot do. The batch itself has run before, so an
    error here is vmap's own, or else the slower way raises it again.
    """
    text = str(error)
    return not (isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text)


class Fallback:
    """Gradients written out, by vmap where that is possible.

    Parameters
    ----------
    network : Network
        How the module is called.
    select : callable
        The outputs compared.
    """

    def __init__(self, network: Network, select: Select):
        self.network = network
        self.select = select
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

    def _outputs(
        self, module: nn.Module, values: dict[str, Tensor], inputs: Inputs, target: Tensor | None
    ) -> Tensor:
        """The d outputs for one sample."""
        batch = map_tensors(lambda tensor: tensor[None], inputs)

        def forward(*args: Tensor, **kwargs: Tensor) -> object:
            return functional_call(module, values, args, kwargs)

        raw = self.network.call(forward, batch)  # type: ignore[arg-type]
        return self.select(raw, None if target is None else target[None])[0]

    def _by_vmap(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> Tensor | None:
        values = {name: p.detach() for name, p in module.named_parameters() if name in names}

        def jacobian(sample: Inputs, target: Tensor | None) -> dict[str, Tensor]:
            return jacrev(lambda v: self._outputs(module, v, sample, target))(values)

        axes = (0, None if targets is None else 0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                found = vmap(jacobian, in_dims=axes)(inputs, targets)
        except RuntimeError as error:
            if not means_cannot(error):
                raise
            return None
        return torch.cat([found[name].detach().flatten(2) for name in names], dim=2)

    def _by_loop(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> Tensor:
        leaves = {
            name: parameter.detach().requires_grad_(name in names)
            for name, parameter in module.named_parameters()
        }
        rows = []
        for index in range(_count(inputs)):
            sample = map_tensors(lambda tensor, row=index: tensor[row], inputs)  # type: ignore[misc]
            target = None if targets is None else targets[index]
            outputs = self._outputs(module, leaves, sample, target)
            rows.append(torch.stack([_gradient(output, leaves, names) for output in outputs]))
        return torch.stack(rows)


def _count(inputs: Inputs) -> int:
    found: list[int] = []
    map_tensors(lambda tensor: found.append(len(tensor)) or tensor, inputs)  # type: ignore[func-returns-value]
    return found[0]


def _gradient(output: Tensor, leaves: dict[str, Tensor], names: list[str]) -> Tensor:
    """One output's gradient, through backward: reentrant checkpoints refuse autograd.grad."""
    for name in names:
        leaves[name].grad = None
    if output.requires_grad:
        output.backward(retain_graph=True)
    return torch.cat([_dense(leaves[name]).flatten() for name in names])


def _dense(leaf: Tensor) -> Tensor:
    if leaf.grad is None:
        return torch.zeros_like(leaf)
    return leaf.grad.to_dense() if leaf.grad.is_sparse else leaf.grad
