"""Forward pass that records the calls of the layers, and the cotangents at these calls.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from .._kernels.jacobian import Jacobian
from .._networks.isolation import attach_hooks
from .._networks.memory import describe_budget, memory_budget
from ..exceptions import OutputTooLargeError, is_out_of_memory

# Longest time, estimated on a CPU, that one sample's gradients of all outputs may take.
_LONGEST_SECONDS = 10

# Multiplications per second of one core: a product of two matrices of 1,000 x 1,000 numbers in
# float64 took 0.033 s, the eigendecomposition of one 0.14 s, on one core of an AMD EPYC.
_OPERATIONS_PER_SECOND = 3e10


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer in a forward pass.

    Attributes
    ----------
    layer : Module
        The layer.
    inputs : Tensor
        Its first argument, with its autograd graph.
    version : int
        Version of the inputs at the call; each in-place operation increases it.
    output_shape : Size
        Shape of its output.
    edge : GradientEdge or None
        Place of its output in the autograd graph; None if the output requires no gradient.
    parameters : frozenset of int
        Ids of the layer's parameters at the call, which functional_call replaces.
    """

    layer: nn.Module
    inputs: Tensor
    version: int
    output_shape: torch.Size
    edge: GradientEdge | None
    parameters: frozenset[int] = frozenset()

    def fits(self, samples: int) -> bool:
        """Return whether the first axes are the samples, and the inputs have not been changed."""
        aligned = len(self.inputs) == samples == self.output_shape[0]
        return aligned and _read_version(self.inputs) == self.version


def _read_version(tensor: Tensor) -> int:
    """Return the version of a tensor; 0 for a tensor of inference mode, which has none."""
    return 0 if tensor.is_inference() else tensor._version


@contextlib.contextmanager
def record_calls(layers: list[nn.Module]) -> Iterator[list[LayerCall]]:
    """Record the calls of the layers inside the block, in order."""
    calls: list[LayerCall] = []

    def record(layer: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        inputs = args[0] if args else kwargs.get("input", next(iter(kwargs.values())))
        # The edge is stored now, because a later in-place operation moves the output to another
        # node of the graph.
        edge = get_gradient_edge(output) if output.requires_grad else None
        own = frozenset(map(id, layer._parameters.values()))
        calls.append(LayerCall(layer, inputs, _read_version(inputs), output.shape, edge, own))

    # The hook runs before the user's hooks, so that it records the output of the layer itself.
    def register(layer: nn.Module) -> RemovableHandle:
        return layer.register_forward_hook(record, with_kwargs=True, prepend=True)

    with attach_hooks(layers, register):
        yield calls


def compute_cotangents(
    outputs: Tensor, calls: list[LayerCall], graph: bool = False
) -> list[Tensor | None]:
    """Return the cotangents at each call: gradients of the network's outputs in the call's output.

    Parameters
    ----------
    outputs : Tensor of shape (n, d)
        Outputs of the network.
    calls : list of LayerCall
        Calls of layers in the forward pass.
    graph : bool
        Whether the cotangents have an autograd graph, so that they can be differentiated.

    Returns
    -------
    cotangents : list of (Tensor of shape (n, d, ...) or None)
        For each call; None if the outputs do not depend on it.
    """
    # The output z of a call has one row z_n per sample. The cotangent of output o at the call is
    # c[n,o] = d f_o(x_n) / d z_n. Because f(x_n) depends on z_n only, it is row n of the gradient
    # of sum_m f_o(x_m), and one backward pass per output computes it for all samples.
    edges = [call.edge for call in calls if call.edge is not None]
    if not edges or not outputs.requires_grad:
        return [None] * len(calls)
    try:
        gradients = _differentiate_batched(outputs, edges, graph)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        # vmap does not support some operation of the network.
        gradients = _differentiate_one_by_one(outputs, edges, graph)
    remaining = iter(gradients)
    aligned = [None if call.edge is None else next(remaining) for call in calls]
    return [None if gradient is None else gradient.transpose(0, 1) for gradient in aligned]


def _differentiate_batched(
    outputs: Tensor, edges: list[GradientEdge], graph: bool
) -> list[Tensor | None]:
    """Return the gradients of all outputs, of shape (d, n, ...), from one batched backward pass."""
    samples, count = outputs.shape
    if count == 1:
        gradients = _grad(outputs, edges, outputs.new_ones(samples, 1), graph)
        return [None if gradient is None else gradient[None] for gradient in gradients]
    # directions[p,n,o] = 1 if o = p, else 0: the gradient of sum_n f_p(x_n) for each p.
    directions = torch.eye(count, dtype=outputs.dtype, device=outputs.device)
    directions = directions[:, None].expand(count, samples, count)
    return list(_grad(outputs, edges, directions, graph, batched=True))


def _differentiate_one_by_one(
    outputs: Tensor, edges: list[GradientEdge], graph: bool
) -> list[Tensor | None]:
    """Return the gradients of all outputs, of shape (d, n, ...), from d backward passes."""
    columns = []
    for index in range(outputs.shape[1]):
        direction = torch.zeros_like(outputs)
        direction[:, index] = 1
        columns.append(_grad(outputs, edges, direction, graph))
    return [_stack(column) for column in zip(*columns, strict=True)]


def _stack(gradients: tuple[Tensor | None, ...]) -> Tensor | None:
    """Stack the gradients of all outputs; None is zero, and the result is None if all are None."""
    nonzero = next((gradient for gradient in gradients if gradient is not None), None)
    if nonzero is None:
        return None
    return torch.stack([torch.zeros_like(nonzero) if g is None else g for g in gradients])


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


def check_affordable(output: Any, outputs: Tensor, calls: list[LayerCall], unserved: int) -> None:
    """Check that one sample's gradients of all d outputs do not take too much memory or time.

    Parameters
    ----------
    output : str, int, list of int or callable
        Parameter of the estimator, for the message.
    outputs : Tensor of shape (n, d)
        Outputs of the network.
    calls : list of LayerCall
        Calls of layers in the forward pass.
    unserved : int
        Number of elements of the parameters without a rule.
    """
    samples, count = outputs.shape
    if count == 1:
        return
    # One sample needs d cotangents at each call, d gradients of the parameters without a rule, and
    # three d x d kernels in float64.
    width = sum(call.output_shape.numel() for call in calls) // samples + unserved
    needed = count * width * outputs.element_size() + 3 * 8 * count**2
    budget = memory_budget(device=outputs.device)
    if needed > budget:
        raise _make_too_large_error(
            f"fit in {budget / 2**20:,.0f} MiB ({describe_budget(outputs.device)})",
            f"about {needed / 2**20:,.0f} MiB",
            output,
            count,
        )
    seconds = _count_operations(count, calls, samples, unserved) / _OPERATIONS_PER_SECOND
    # The rate was measured on a CPU, so the time on other devices is not known.
    if seconds > _LONGEST_SECONDS and outputs.device.type == "cpu":
        raise _make_too_large_error(
            f"take at most {_LONGEST_SECONDS} s on a CPU", f"about {seconds:,.0f} s", output, count
        )


def _count_operations(count: int, calls: list[LayerCall], samples: int, unserved: int) -> int:
    """Return an estimate of the multiplications for one sample's gradients of all outputs.

    Parameters
    ----------
    count : int
        The number d of outputs.
    calls : list of LayerCall
        Calls of layers in the forward pass.
    samples : int
        Number of samples in the forward pass.
    unserved : int
        Number of elements of the parameters without a rule.
    """
    products, length = 0, unserved
    for call in calls:
        elements, (weight, row) = call.output_shape.numel() // samples, _weight_sizes(call.layer)
        # The cotangent of the inputs takes a product of each element of the output's cotangent with
        # a row of the weight, and so do the gradients if they are written out.
        is_written = weight < elements
        products += (call.inputs.requires_grad + is_written) * elements * row
        length += min(weight, elements)
    # The self-kernel and the whitening take d^2 products of that length each. The root of the
    # self-kernel takes d^3, and its eigendecomposition as long as about 4 d^3 multiplications.
    return count * products + 2 * count**2 * length + 5 * count**3


def _weight_sizes(layer: nn.Module) -> tuple[int, int]:
    """Return the numbers of elements of a layer's weight, and of a row of it; 1 without weight."""
    weight = layer._parameters.get("weight")
    return (1, 1) if weight is None else (weight.numel(), weight.shape[1:].numel())


def _make_too_large_error(limit: str, needed: str, output: Any, count: int) -> OutputTooLargeError:
    """Return the error for outputs whose gradients exceed a limit."""
    return OutputTooLargeError(
        f"`output` must select outputs whose gradients for one sample {limit}; got"
        f" {reprlib.repr(output)}, {count} outputs that take {needed}. Set output='predicted',"
        " 'sum', some indices, or a callable that returns fewer outputs."
    )


def bytes_per_sample(jacobian: Jacobian, calls: list[LayerCall]) -> int:
    """Return an estimate of the bytes per sample that a chunk needs.

    It is three times the size of what is known: windows of the inputs, cotangents, blocks and
    self-kernels. The rest is for intermediate results.
    """
    samples, count = jacobian.outputs.shape
    elements = sum(
        call.inputs.numel() * _window_size(call.layer) + count * call.output_shape.numel()
        for call in calls
    )
    captured = elements * jacobian.outputs.element_size()
    return 3 * (captured + jacobian.nbytes + 8 * samples * count**2) // samples


def _window_size(layer: nn.Module) -> int:
    """Return the number of positions in a convolution's kernel; 1 for other layers."""
    weight = layer._parameters.get("weight")
    return 1 if weight is None else weight.shape[2:].numel()
