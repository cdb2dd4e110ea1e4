"""One forward pass that records what the rules need, and the cotangents that follow.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .._kernels.jacobian import Jacobian
from .._networks.memory import memory_budget
from ..exceptions import OutputTooLargeError, is_out_of_memory


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer; ``edge`` is None where its output has no graph of its own.

    The inputs are part of the graph, where there is one.
    """

    layer: nn.Module
    inputs: Tensor
    version: int
    output_shape: torch.Size
    edge: GradientEdge | None

    def fits(self, samples: int) -> bool:
        """Whether its first axis is the samples' and its input is still what it was."""
        aligned = len(self.inputs) == samples == self.output_shape[0]
        return aligned and self.inputs._version == self.version


@contextlib.contextmanager
def record_calls(layers: list[nn.Module]) -> Iterator[list[LayerCall]]:
    """Record each call of the layers."""
    uses: list[LayerCall] = []

    def record(layer: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        inputs = args[0] if args else kwargs.get("input", next(iter(kwargs.values())))
        # A later in-place operation moves the output to another node of the graph: take the
        # edge now.
        edge = get_gradient_edge(output) if output.requires_grad else None
        uses.append(LayerCall(layer, inputs, inputs._version, output.shape, edge))

    handles = [
        layer.register_forward_hook(record, with_kwargs=True, prepend=True) for layer in layers
    ]
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def compute_cotangents(
    outputs: Tensor, uses: list[LayerCall], graph: bool = False
) -> list[Tensor | None]:
    """Gradients of the d outputs in each use's output, of shape (n, o, ...); None where zero.

    With a ``graph`` of their own where asked for, so that they can be differentiated again.
    """
    edges = [use.edge for use in uses if use.edge is not None]
    if not edges or not outputs.requires_grad:
        return [None] * len(uses)
    try:
        found = _batched(outputs, edges, graph)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        found = _one_by_one(outputs, edges, graph)
    gradients = iter(found)
    aligned = [None if use.edge is None else next(gradients) for use in uses]
    return [None if gradient is None else gradient.transpose(0, 1) for gradient in aligned]


def _batched(outputs: Tensor, edges: list[GradientEdge], graph: bool) -> list[Tensor | None]:
    samples, count = outputs.shape
    if count == 1:
        gradients = _grad(outputs, edges, outputs.new_ones(samples, 1), graph)
        return [None if gradient is None else gradient[None] for gradient in gradients]
    directions = torch.eye(count, dtype=outputs.dtype, device=outputs.device)
    directions = directions[:, None].expand(count, samples, count)
    return list(_grad(outputs, edges, directions, graph, batched=True))


def _one_by_one(outputs: Tensor, edges: list[GradientEdge], graph: bool) -> list[Tensor | None]:
    columns = []
    for index in range(outputs.shape[1]):
        direction = torch.zeros_like(outputs)
        direction[:, index] = 1
        columns.append(_grad(outputs, edges, direction, graph))
    return [_stacked(column) for column in zip(*columns, strict=True)]


def _stacked(gradients: tuple[Tensor | None, ...]) -> Tensor | None:
    shown = next((gradient for gradient in gradients if gradient is not None), None)
    if shown is None:
        return None
    return torch.stack([torch.zeros_like(shown) if g is None else g for g in gradients])


def _grad(
    outputs: Tensor,
    edges: list[GradientEdge],
    direction: Tensor,
    graph: bool,
    batched: bool = False,
) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(
        outputs,
        edges,
        direction,
        retain_graph=True,
        create_graph=graph,
        is_grads_batched=batched,
        allow_unused=True,
    )


def check_affordable(output: Any, outputs: Tensor, uses: list[LayerCall], written: int) -> None:
    """Refuse outputs whose gradients for a single sample exceed the budget.

    These are d cotangents of each layer, d gradients of the ``written`` parameters without a rule,
    and three d x d kernels in float64.
    """
    samples, count = outputs.shape
    width = sum(use.output_shape.numel() for use in uses) // samples + written
    needed = count * width * outputs.element_size() + 3 * 8 * count**2
    if count > 1 and needed > memory_budget():
        raise OutputTooLargeError(
            f"output={output!r} compares {count} outputs, which takes about"
            f" {needed / 2**20:,.0f} MiB for one sample; allowed are"
            f" {memory_budget() / 2**20:,.0f} MiB (scikit-learn's working_memory): compare"
            " 'predicted', 'sum', some indices or a callable that reduces them."
        )


def bytes_per_sample(jacobian: Jacobian, uses: list[LayerCall]) -> int:
    """Bytes per sample of a pass: windows, cotangents, blocks and as much again twice."""
    samples, count = jacobian.outputs.shape
    elements = sum(
        use.inputs.numel() * _window(use.layer) + count * use.output_shape.numel() for use in uses
    )
    captured = elements * jacobian.outputs.element_size()
    return 3 * (captured + jacobian.nbytes + 8 * samples * count**2) // samples


def _window(layer: nn.Module) -> int:
    """Elements of a convolution's kernel; 1 for other layers."""
    weight = layer._parameters.get("weight")
    return 1 if weight is None else weight.shape[2:].numel()
