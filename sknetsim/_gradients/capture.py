"""Cotangents at the recorded calls of a forward pass, and their cost in memory and time.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._kernels.jacobian import Jacobian
from .._kernels.layouts import Layout
from .._networks.memory import describe_budget, memory_budget
from ..exceptions import OutputTooLargeError, is_out_of_memory
from .recording import Use

# Longest time, estimated on a CPU, that one sample's gradients of all outputs may take.
_LONGEST_SECONDS = 10

# Largest mean number of elements of a call's output for which the backward passes of all outputs,
# with their graph, are one batched pass. For larger ones, new memory takes longer than more passes.
_BATCHED_ELEMENTS = 2**17

# Multiplications per second of one core: a product of two matrices of 1,000 x 1,000 numbers in
# float64 took 0.033 s, the eigendecomposition of one 0.14 s, on one core of an AMD EPYC.
_OPERATIONS_PER_SECOND = 3e10


def compute_cotangents(
    outputs: Tensor, uses: Sequence[Use], graph: bool = False
) -> list[Tensor | None]:
    """Return the cotangents at each use: gradients of the network's outputs in the call's output.

    Parameters
    ----------
    outputs : Tensor of shape (n, d)
        Outputs of the network.
    uses : list of Use
        Uses of parameters in the forward pass.
    graph : bool
        Whether the cotangents have an autograd graph, so that they can be differentiated.

    Returns
    -------
    cotangents : list of (Tensor of shape (d, ...) or None)
        For each use, where ... is the shape of its output; None if the outputs do not depend on it.
    """
    # The output z of a call consists of one part z_n per sample. The cotangent of output o at the
    # call is c[n,o] = d f_o(x_n) / d z_n. Because f(x_n) depends on z_n only, it is part n of the
    # gradient of sum_m f_o(x_m), and one backward pass per output computes it for all samples.
    edges = [edge for use in uses if (edge := use.call.edges[use.output]) is not None]
    if not edges or not outputs.requires_grad:
        return [None] * len(uses)
    if graph and _is_quicker_one_by_one(outputs, uses):
        return _differentiate_one_by_one(outputs, edges, graph)
    try:
        return _differentiate_batched(outputs, edges, graph)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        # vmap does not support some operation of the network.
        return _differentiate_one_by_one(outputs, edges, graph)


def _is_quicker_one_by_one(outputs: Tensor, uses: Sequence[Use]) -> bool:
    """Return whether one backward pass with its graph for each output is quicker than a batch."""
    elements, count = sum(map(_count_elements, uses)), outputs.shape[1]
    is_large = elements > _BATCHED_ELEMENTS * len(uses)
    return count > 1 and is_large and outputs.device.type == "cpu"


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
    nonzero: list[int] = []

    def differentiate(direction: Tensor) -> list[Tensor]:
        gradients = _grad(outputs, edges, direction, graph)
        nonzero[:] = [index for index, value in enumerate(gradients) if value is not None]
        return [value for value in gradients if value is not None]

    # This vmap supports more functions than `is_grads_batched`, but no result that is None.
    with warnings.catch_warnings():
        # It loops over the outputs for some functions, such as attention, which takes no longer
        # than a backward pass for each output.
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        batched = torch.func.vmap(differentiate)(directions)
    by_edge = dict(zip(nonzero, batched, strict=True))
    return [by_edge.get(index) for index in range(len(edges))]


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
    # Samples come first in memory, as in the blocks, which then need no copy.
    columns = [torch.zeros_like(nonzero) if g is None else g for g in gradients]
    return torch.stack(columns, dim=1).movedim(1, 0) if nonzero.ndim else torch.stack(columns)


def _grad(
    outputs: Tensor,
    edges: list[GradientEdge],
    direction: Tensor,
    graph: bool,
) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(
        outputs,
        edges,
        direction,
        retain_graph=True,
        create_graph=graph,
        allow_unused=True,
    )


def check_affordable(output: Any, outputs: Tensor, uses: Sequence[Use], unserved: Layout) -> None:
    """Check that one sample's gradients of all d outputs do not take too much memory or time.

    Parameters
    ----------
    output : str, int, list of int or callable
        Parameter of the estimator, for the message.
    outputs : Tensor of shape (n, d)
        Outputs of the network.
    uses : list of Use
        Uses of parameters in the forward pass.
    unserved : tuple of (str, Size)
        Names and shapes of the parameters that the fallback computes.
    """
    samples, count = outputs.shape
    if count == 1:
        return
    elements = sum(shape.numel() for _, shape in unserved)
    # One sample needs d cotangents at each call, d gradients of the parameters without a rule, and
    # three d x d kernels in float64.
    width = sum(map(_count_elements, uses)) // samples + elements
    needed = count * width * outputs.element_size() + 3 * 8 * count**2
    budget = memory_budget(device=outputs.device)
    if needed > budget:
        raise _make_too_large_error(
            f"fit in {budget / 2**20:,.0f} MiB ({describe_budget(outputs.device)})",
            f"about {needed / 2**20:,.0f} MiB",
            output,
            count,
        )
    seconds = _count_operations(count, uses, samples, elements) / _OPERATIONS_PER_SECOND
    # The rate was measured on a CPU, so the time on other devices is not known.
    if seconds > _LONGEST_SECONDS and outputs.device.type == "cpu":
        raise _make_too_large_error(
            f"take at most {_LONGEST_SECONDS} s on a CPU", f"about {seconds:,.0f} s", output, count
        )


def _count_operations(count: int, uses: Sequence[Use], samples: int, unserved: int) -> int:
    """Return an estimate of the multiplications for one sample's gradients of all outputs.

    Parameters
    ----------
    count : int
        The number d of outputs.
    uses : list of Use
        Uses of parameters in the forward pass.
    samples : int
        Number of samples in the forward pass.
    unserved : int
        Number of elements of the parameters without a rule.
    """
    products, length = 0, unserved
    for use in uses:
        elements, (weight, row) = _count_elements(use) // samples, _weight_sizes(use)
        # The cotangent of the inputs takes a product of each element of the output's cotangent with
        # a row of the weight, and so do the gradients if they are written out.
        is_written = weight < elements
        has_cotangent = any(tensor.requires_grad for tensor in _list_inputs(use))
        products += (has_cotangent + is_written) * elements * row
        length += min(weight, elements)
    # The self-kernel and the whitening take d^2 products of that length each. The root of the
    # self-kernel takes d^3, and its eigendecomposition as long as about 4 d^3 multiplications.
    return count * products + 2 * count**2 * length + 5 * count**3


def _count_elements(use: Use) -> int:
    """Return the number of elements of the output of a use."""
    return math.prod(use.call.output_shapes[use.output])


def _list_inputs(use: Use) -> list[Tensor]:
    """Return the arguments of a use that are tensors other than the parameters."""
    arguments = use.call.arguments.items()
    return [v for name, v in arguments if isinstance(v, Tensor) and name not in use.sources]


def _weight_sizes(use: Use) -> tuple[int, int]:
    """Return the numbers of elements of the largest parameter of a use, and of a row of it."""
    weight = max((source.tensor for source in use.sources.values()), key=torch.Tensor.numel)
    return weight.numel(), weight.shape[1:].numel()


def _make_too_large_error(limit: str, needed: str, output: Any, count: int) -> OutputTooLargeError:
    """Return the error for outputs whose gradients exceed a limit."""
    return OutputTooLargeError(
        f"`output` must select outputs whose gradients for one sample {limit}; got"
        f" {reprlib.repr(output)}, {count} outputs that take {needed}. Set output='predicted',"
        " 'sum', some indices, or a callable that returns fewer outputs."
    )


def bytes_per_sample(jacobian: Jacobian, uses: Sequence[Use]) -> int:
    """Return an estimate of the bytes per sample that a chunk needs.

    It is twice the size of what is kept: inputs, cotangents, blocks and self-kernels. The rest is
    for intermediate results. For the largest windows of the inputs of one call, three times their
    size is added.
    """
    samples, count = jacobian.outputs.shape
    inputs = [sum(tensor.numel() for tensor in _list_inputs(use)) for use in uses]
    # Windows that the blocks keep are a part of the blocks.
    windows = [size * _window_size(use) for size, use in zip(inputs, uses, strict=True)]
    cotangents = count * sum(map(_count_elements, uses))
    size = jacobian.outputs.element_size()
    kept = (sum(inputs) + cotangents) * size + jacobian.nbytes + 8 * samples * count**2
    return (2 * kept + 3 * max(windows, default=0) * size) // samples


def _window_size(use: Use) -> int:
    """Return the number of positions in a convolution's kernel; 1 for other functions."""
    weight = use.sources.get("weight")
    return 1 if weight is None else weight.tensor.shape[2:].numel()
