"""Gradients as matrices: those of the layers, and those of all other parameters.

A weight that is applied to activations has the gradient G = sum_t e_t a_t^T, a matrix for each
group, whose last column may be the bias. The gradients J of any other parameter are matrices with
one column, e = J and a = 1.

Index legend: n samples; o outputs; t positions; g groups; j output and i input channels of a group;
q vectors; w one parameter, flattened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .._kernels.blocks import Block, DenseBlock, split_by_parameter
from .._kernels.embedding_blocks import EmbeddingBlock
from .._kernels.factored_blocks import FactorBlock
from .._kernels.jacobian import Jacobian
from .._kernels.layouts import PLAIN_ORDER, Order
from .._kernels.parameter_maps import IdentityMap, ParameterMap
from .._kernels.position_blocks import PositionBlock
from .._kernels.sum_blocks import SumBlock, Summand
from .._networks.memory import CHUNK, memory_budget

# Largest number of elements of all matrices (g, j, j) of a parameter that belongs to no layer with
# factors (2 MiB in float64). One matrix has up to 512 rows then.
_LARGEST_MATRICES = 2**18


@dataclass(frozen=True)
class MatrixForm:
    """Form in which the gradients of some parameters are matrices.

    Attributes
    ----------
    maps : tuple of ParameterMap
        Map from the weight, and from the bias if there is one, to the parameters behind them.
    order : Order
        Order in which the weight, stored as (g, j, i), is arranged in its layout.
    shape : tuple of three int
        Numbers of groups, and of rows and columns of the weight in a group.
    is_diagonal : bool
        Whether activations are one-hot, so that their second moments are a diagonal matrix.
    """

    maps: tuple[ParameterMap, ...]
    order: Order
    shape: tuple[int, int, int]
    is_diagonal: bool = False

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """Numbers of groups, rows and columns, with the column of the bias if there is one."""
        groups, rows, columns = self.shape
        return groups, rows, columns + len(self.maps) - 1

    @property
    def sizes(self) -> dict[str, int]:
        """Number of elements of each parameter, by name."""
        return {name: shape.numel() for own in self.maps for name, shape in own.layout}

    def arrange(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Return the matrices (q, g, j, i) of gradients of shape (q, w) by parameter."""
        weight, *bias = (parameter_map.push(gradients) for parameter_map in self.maps)
        matrices = self.order.from_layout(weight).unflatten(1, self.shape)
        columns = [vector.unflatten(1, self.shape[:2])[..., None] for vector in bias]
        return torch.cat([matrices, *columns], dim=3)


@dataclass(frozen=True)
class MatrixGradients:
    """Gradients of some parameters as matrices.

    Attributes
    ----------
    form : MatrixForm
        The form of the matrices.
    block : PositionBlock
        The gradients as those of one weight, with the bias as its last column.
    """

    form: MatrixForm
    block: PositionBlock


def list_matrices(jacobian: Jacobian) -> dict[str, MatrixGradients]:
    """Return the gradients of each group of parameters, by the name of its first parameter.

    The parts of a weight that is split into several ones have a number after the name.
    """
    matrices: dict[str, MatrixGradients] = {}
    for key, block in jacobian.blocks.items():
        summands = _list_summands(block)
        for index, summand in enumerate(summands):
            name = key[0] if len(summands) == 1 else f"{key[0]}[{index}]"
            matrices[name] = _arrange_factors(summand, name)
        if not summands:
            parts = split_by_parameter(block)
            matrices |= {part.layout[0][0]: _arrange_elements(part) for part in parts}
    return matrices


def _list_summands(block: Block) -> tuple[Summand, ...]:
    """Return the blocks with factors whose gradients are disjoint parts of those of a block.

    The result is empty if there are none, or if they leave out an element of a parameter.
    """
    if isinstance(block, PositionBlock):
        return (Summand(block, tuple(IdentityMap((entry,)) for entry in block.layout)),)
    if not isinstance(block, SumBlock) or not block.is_orthogonal:
        return ()
    have_factors = all(isinstance(part.block, PositionBlock) for part in block.parts)
    covered = sum(shape.numel() for part in block.parts for _, shape in part.block.layout)
    is_complete = covered == sum(shape.numel() for _, shape in block.layout)
    return block.parts if have_factors and is_complete else ()


def _arrange_factors(summand: Summand, name: str) -> MatrixGradients:
    """Return the matrices of a block with factors."""
    block = summand.block
    assert isinstance(block, PositionBlock)
    form = MatrixForm(
        summand.maps, block.matrix_order, block.matrix_shape, isinstance(block, EmbeddingBlock)
    )
    return MatrixGradients(form, block.as_matrices(name))


def _arrange_elements(block: DenseBlock) -> MatrixGradients:
    """Return the gradients of one parameter as matrices with one column.

    Their rows are all elements, the elements of one entry along the first axis, or one element: the
    first of these for which the curvature has at most `_LARGEST_MATRICES` elements.
    """
    (entry,) = block.layout
    elements, first = entry[1].numel(), entry[1][:1].numel()
    shapes = [(1, elements), (first, elements // max(1, first)), (elements, 1)]
    groups, rows = next(
        (shape for shape in shapes if shape[0] * shape[1] ** 2 <= _LARGEST_MATRICES), shapes[-1]
    )
    gradients = block.materialize()
    cotangents = gradients.unflatten(2, (1, groups, rows))
    ones = gradients.new_ones(()).expand(len(gradients), 1, groups, 1)
    form = MatrixForm((IdentityMap((entry,)),), PLAIN_ORDER, (groups, rows, 1))
    layout = ((entry[0], torch.Size([elements, 1])),)
    return MatrixGradients(form, FactorBlock(layout, cotangents, ones))


def split_samples(jacobian: Jacobian, keeps_factors: bool) -> list[Jacobian]:
    """Return parts of the samples whose gradients fit in the memory budget when written out.

    With ``keeps_factors``, only the gradients without factors are written out, and else all except
    those of embeddings.
    """
    elements = sum(_count_written(block, keeps_factors) for block in jacobian.blocks.values())
    outputs = jacobian.outputs
    # They are in memory twice while they are computed.
    per_sample = 2 * outputs.shape[1] * elements * outputs.element_size()
    step = max(1, memory_budget(CHUNK, outputs.device) // max(1, per_sample))
    starts = range(0, len(jacobian), step)
    return [jacobian.rows(slice(start, start + step)) for start in starts]


def _count_written(block: Block, keeps_factors: bool) -> int:
    """Return the number of elements of one gradient that are written out."""
    summands = _list_summands(block)
    if not summands:
        return _count_elements(block)
    if keeps_factors:
        return 0
    blocks = (summand.block for summand in summands)
    return sum(_count_elements(own) for own in blocks if not isinstance(own, EmbeddingBlock))


def _count_elements(block: Block) -> int:
    return sum(shape.numel() for _, shape in block.layout)


def write_parameters(jacobian: Jacobian, names: Collection[str]) -> dict[str, Tensor]:
    """Return the gradients in some parameters written out, of shape (n o, w) by parameter.

    Parameters in the same blocks are written out, too.
    """
    parts = (
        part
        for key, block in jacobian.blocks.items()
        if not set(names).isdisjoint(key)
        for part in split_by_parameter(block)
    )
    return {part.layout[0][0]: part.materialize().flatten(0, 1) for part in parts}
