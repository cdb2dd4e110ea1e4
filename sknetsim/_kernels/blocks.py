"""Per-sample gradients of one layer, stored as factors or written out.

Index legend: n, m samples; o, p outputs of the network (d of them); q vectors; w the block's
parameters, flattened in the order of its layout; r, c a parameter's first axis and its other axes,
flattened; f frequencies. J[n,o,w] = J_o(x_n) is the gradient of output o at sample n; J' and x'
belong to the other block. Letters side by side are one flattened axis, as in J[n,ow], or, under a
sum, several indices: sum_no runs over all n and o.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .layouts import PLAIN_ORDER, FourierMap, Layout, Order, longest_first_axis, multiply_complex

# Number of elements that are converted to float64 at a time (512 KiB, which stays in the cache of a
# core).
_DOUBLE_ELEMENTS = 2**16

# Largest number of squares that are summed in the dtype of the gradients.
_LONGEST_SQUARE_SUM = 512

# Largest number of products that are summed in the dtype of the gradients.
_LONGEST_PRODUCT_SUM = 2**15

# Number of elements of the products of segments that are in memory at a time (16 MiB in float32).
_SEGMENT_PRODUCTS = 2**22


@dataclass(frozen=True)
class Block(abc.ABC):
    """Gradients of d outputs for n samples with respect to the parameters in ``layout``."""

    layout: Layout

    @abc.abstractmethod
    def materialize(self) -> Tensor:
        """Return the gradients J[n,o,w] themselves."""

    @abc.abstractmethod
    def whiten(self, root: Tensor) -> Block:
        """Return the block of sum_p root[n,o,p] J[n,p,w]."""

    @abc.abstractmethod
    def self_kernel(self) -> Tensor:
        """Return K[n,o,p] = <J_o(x_n), J_p(x_n)>.

        The result is float64, because squares can leave the range of float32.
        """

    @abc.abstractmethod
    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        """Return sum_no weights[n,o,q] J[n,o,w], the product of J^T and the weights.

        The list has one tensor of shape (q, size) for each entry of the layout.
        """

    @abc.abstractmethod
    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return sum_o <J_o(x_n), v_o>, of shape (n,).

        The vectors are given as one tensor of shape (o, size) for each entry of the layout.
        """

    @abc.abstractmethod
    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return J v, that is <J_o(x_n), v_q> of shape (n, o, q).

        The vectors are given as one tensor of shape (q, size) for each entry of the layout.
        """

    # The next four methods compute the public ones of the same names for blocks of equal forms.

    @abc.abstractmethod
    def _gram(self, other: Block) -> Tensor: ...

    @abc.abstractmethod
    def _trace_gram(self, other: Block) -> Tensor: ...

    @abc.abstractmethod
    def _paired(self, other: Block) -> Tensor: ...

    @abc.abstractmethod
    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]: ...

    @abc.abstractmethod
    def _concatenate(self, blocks: Sequence[Any]) -> Block:
        """Return one block of the samples of all blocks, whose forms are equal."""

    @abc.abstractmethod
    def _add(self, blocks: Sequence[Any]) -> Block:
        """Return the sum of the gradients of all blocks, whose forms are equal."""

    def _form(self) -> tuple[object, ...]:
        """Return a key; blocks with equal keys can be combined without writing them out."""
        return (type(self),)

    def gram(self, other: Block) -> Tensor:
        """Return K[n,m,o,p] = <J_o(x_n), J'_p(x'_m)>."""
        if self._form() == other._form():
            return self._gram(other)
        return self.dense()._gram(other.dense())

    def trace_gram(self, other: Block) -> Tensor:
        """Return tr K(x_n, x'_m) = sum_o <J_o(x_n), J'_o(x'_m)>, of shape (n, m)."""
        if self._form() == other._form():
            return self._trace_gram(other)
        return self.dense()._trace_gram(other.dense())

    def paired(self, other: Block) -> Tensor:
        """Return tr K(x_n, x'_n) for the n-th samples of two blocks, of shape (n,)."""
        if self._form() == other._form():
            return self._paired(other)
        return self.dense()._paired(other.dense())

    def paired_positions(self, other: Block) -> Tensor:
        """Return the share of each pair of positions in `paired`, of shape (n, t, s)."""
        return self.paired(other)[:, None, None]

    def marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        """Return the share of each row or column of each parameter in `paired`.

        The share of a row is sum_oc J[n,o,rc] J'[n,o,rc], and that of a column is
        sum_or J[n,o,rc] J'[n,o,rc].

        Parameters
        ----------
        other : Block
            A block of n samples.
        by_rows : sequence of bool
            For each entry of the layout, True for the shares of its rows and False for those of its
            columns.

        Returns
        -------
        marginals : list of Tensor of shape (n, r) or (n, c)
            One tensor for each entry of the layout.
        """
        if self._form() == other._form():
            return self._marginals(other, by_rows)
        return self.dense()._marginals(other.dense(), by_rows)

    def dense(self) -> DenseBlock:
        """Return the same gradients written out, in the order of the layout."""
        return DenseBlock(self.layout, self.materialize())

    @abc.abstractmethod
    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        """Return the tensor sketch in the Fourier domain, of shape (n, f), complex.

        With one map S for each parameter, it is sum_orc S[f,o,r,c] J[n,o,rc], summed over the
        parameters.
        """

    @property
    @abc.abstractmethod
    def sketched_vectors(self) -> int:
        """Number of complex vectors of length f that `sketch` holds for each sample."""

    def for_sums(self, vectors: int = 1) -> Block:
        """Return the form that is cheaper for a self-kernel and q = ``vectors`` weighted sums."""
        return self

    def prefers_pairs(self, sums: int) -> bool:
        """Return whether all pairs of samples are cheaper than sums over groups of samples.

        There are ``sums`` groups, with one sum of the gradients of each output.
        """
        return False

    def for_pairs(self) -> Block:
        """Return the form that is cheaper for gram matrices."""
        return self

    def rows(self, rows: Any) -> Block:
        """Return the block of the samples with these indices, or in this slice."""
        return self._map(lambda tensor: tensor[rows])

    def split(self, sizes: Sequence[int]) -> list[Block]:
        """Return blocks of consecutive samples, with ``sizes`` samples each."""
        tensors = {name: tensor.split(list(sizes)) for name, tensor in self._tensors().items()}
        parts: list[dict[str, Any]] = [
            dict(zip(tensors, part, strict=True)) for part in zip(*tensors.values(), strict=True)
        ]
        return [replace(self, **part) for part in parts]

    def double(self) -> Block:
        """Return the block in float64."""
        return self._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)

    @property
    def positions(self) -> int:
        """Number of positions at which the layer applies its parameters to a sample."""
        return 1

    @property
    def has_positions(self) -> bool:
        """True if the block keeps the activations at each position apart."""
        return False

    @property
    def nbytes(self) -> int:
        """Size of the factors in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        """Return the factors by field name; the first axis of each is that of the samples."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _map(self, function: Callable[[Tensor], Tensor]) -> Block:
        """Return the block with a function applied to each factor."""
        mapped: dict[str, Any] = {
            name: function(tensor) for name, tensor in self._tensors().items()
        }
        return replace(self, **mapped)


@dataclass(frozen=True)
class DenseBlock(Block):
    """Gradients written out, of shape (n, o, w), where w is stored in ``order``."""

    gradients: Tensor
    order: Order = PLAIN_ORDER

    def _form(self) -> tuple[object, ...]:
        return type(self), self.order

    def materialize(self) -> Tensor:
        return self.order.to_layout(self.gradients)

    def whiten(self, root: Tensor) -> DenseBlock:
        root = root.to(self.gradients)
        if root.shape[1] == 1:
            return replace(self, gradients=root * self.gradients)
        return replace(self, gradients=torch.bmm(root, self.gradients))

    def self_kernel(self) -> Tensor:
        if self.gradients.shape[1] == 1:
            return squared_norms(self.gradients)[..., None]
        return products_in_double(self.gradients)

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        # sums[q,w] = sum_no weights[no,q] J[no,w]
        flat = weights.to(self.gradients).flatten(0, 1)
        sums = self.order.to_layout(flat.mT @ self.gradients.flatten(0, 1))
        return list(sums.split([shape.numel() for _, shape in self.layout], dim=1))

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        # sum_ow J[n,ow] v[ow]
        stored = self.order.from_layout(torch.cat(list(vectors), dim=1).to(self.gradients))
        return sum_products(self.gradients.flatten(1), stored.flatten()[:, None])[:, 0]

    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        # sum_w J[n,o,w] v[q,w]
        stored = self.order.from_layout(torch.cat(list(vectors), dim=1).to(self.gradients))
        return sum_products(self.gradients, stored.mT)

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        parts = self.materialize().split([shape.numel() for _, shape in self.layout], dim=2)
        return sum(map(_sketch_dense, parts, maps), start=torch.zeros((), dtype=maps[0].rows.dtype))

    @property
    def sketched_vectors(self) -> int:
        return self.gradients.shape[1] * longest_first_axis(self.layout)

    def _gram(self, other: Block) -> Tensor:
        assert isinstance(other, DenseBlock)
        # K[no,mp] = sum_w J[no,w] J'[mp,w], then the axes are moved to (n, m, o, p).
        product = sum_products(self.gradients.flatten(0, 1), other.gradients.flatten(0, 1).mT)
        rows, columns = self.gradients.shape[:2], other.gradients.shape[:2]
        return product.unflatten(1, columns).unflatten(0, rows).transpose(1, 2)

    def _trace_gram(self, other: Block) -> Tensor:
        assert isinstance(other, DenseBlock)
        # sum_ow J[n,ow] J'[m,ow]
        return sum_products(self.gradients.flatten(1), other.gradients.flatten(1).mT)

    def _paired(self, other: Block) -> Tensor:
        assert isinstance(other, DenseBlock)
        # sum_ow J[n,ow] J'[n,ow]
        pairs = zip(
            self.gradients.flatten(1).split(_LONGEST_PRODUCT_SUM, dim=1),
            other.gradients.flatten(1).split(_LONGEST_PRODUCT_SUM, dim=1),
            strict=True,
        )
        # A product of single vectors would add their elements one after another; a sum adds them in
        # pairs, which keeps the digits.
        sums = ((own * others).sum(dim=1).double() for own, others in pairs)
        return functools.reduce(torch.add, sums)

    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        assert isinstance(other, DenseBlock)
        # products[n,w] = sum_o J[n,o,w] J'[n,o,w], then a sum over the rows or columns in w.
        products = self.order.to_layout((self.gradients * other.gradients).sum(dim=1))
        parts = products.split([shape.numel() for _, shape in self.layout], dim=1)
        shapes = [(shape[:1].numel(), shape[1:].numel()) for _, shape in self.layout]
        return [
            part.unflatten(1, shape).sum(dim=2 if rows else 1)
            for part, shape, rows in zip(parts, shapes, by_rows, strict=True)
        ]

    def _concatenate(self, blocks: Sequence[DenseBlock]) -> DenseBlock:
        return replace(self, gradients=concatenate_tensors([block.gradients for block in blocks]))

    def _add(self, blocks: Sequence[DenseBlock]) -> DenseBlock:
        return replace(self, gradients=functools.reduce(torch.add, [b.gradients for b in blocks]))


def sum_products(first: Tensor, second: Tensor) -> Tensor:
    """Return the matrix product, in float64 if the axis that is summed is long.

    The rounding error of a product in float32 grows with the length of that axis. In some libraries
    it reaches 1e-3 of the value at 10^7 elements. So segments of `_LONGEST_PRODUCT_SUM` elements
    are summed in the dtype of the matrices, and their sums are added in float64.
    """
    width = first.shape[-1]
    if width <= _LONGEST_PRODUCT_SUM or first.dtype == torch.float64:
        return first @ second
    # sum_w A[n,w] B[w,m] = sum_s P[s,n,m], where P[s] sums over the w of segment s.
    elements = first[..., 0].numel() * second.shape[-1]
    step = _LONGEST_PRODUCT_SUM * max(1, _SEGMENT_PRODUCTS // elements)
    groups = (slice(start, min(start + step, width)) for start in range(0, width, step))
    sums = (_sum_segments(first[..., group], second[..., group, :]) for group in groups)
    return functools.reduce(torch.add, sums)


def _sum_segments(first: Tensor, second: Tensor) -> Tensor:
    """Return the matrix product of some segments, added in float64."""
    width = first.shape[-1]
    whole = width - width % _LONGEST_PRODUCT_SUM
    left = first[..., :whole].unflatten(-1, (-1, _LONGEST_PRODUCT_SUM)).movedim(-2, 0)
    right = second[..., :whole, :].unflatten(-2, (-1, _LONGEST_PRODUCT_SUM)).movedim(-3, 0)
    # If the second has fewer axes, each of its matrices is multiplied with several of the first.
    right = right.unflatten(0, (-1, *[1] * (left.ndim - right.ndim)))
    total = (left @ right).sum(dim=0, dtype=torch.float64)
    if whole < width:
        total = total + first[..., whole:] @ second[..., whole:, :]
    return total


def squared_norms(vectors: Tensor) -> Tensor:
    """Return the sums of squares along the last axis, float64.

    Segments of `_LONGEST_SQUARE_SUM` elements are summed in the dtype of the vectors, and their
    sums are added in float64.
    """
    width = vectors.shape[-1]
    if width <= _LONGEST_SQUARE_SUM:
        return torch.linalg.vector_norm(vectors, dim=-1).double().square()
    whole = width - width % _LONGEST_SQUARE_SUM
    segments = vectors[..., :whole].unflatten(-1, (-1, _LONGEST_SQUARE_SUM))
    norms = torch.linalg.vector_norm(segments, dim=-1).double().square().sum(dim=-1)
    return norms + squared_norms(vectors[..., whole:]) if whole < width else norms


def concatenate_tensors(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return the tensors concatenated along an axis.

    On a CPU, if no gradients are recorded, the result is in numpy's memory, which uses huge pages
    for large arrays.
    """
    if tensors[0].device.type != "cpu" or torch.is_grad_enabled():
        return torch.cat(list(tensors), axis)
    shape = list(tensors[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    result = torch.from_numpy(np.empty(shape, torch.empty(0, dtype=tensors[0].dtype).numpy().dtype))
    return torch.cat(list(tensors), axis, out=result)


def concatenate_blocks(blocks: Sequence[Block]) -> Block:
    """Return one block of the samples of all blocks, which belong to the same parameters."""
    # Factors can be concatenated along the samples only if all have the same number of positions.
    if len({block.positions for block in blocks}) > 1:
        blocks = [block.dense() for block in blocks]
    blocks = _convert_to_one_form(blocks)
    return blocks[0]._concatenate(blocks)


def add_blocks(blocks: Sequence[Block]) -> Block:
    """Return the sum of blocks of the same samples and parameters, one for each layer call."""
    if len(blocks) == 1:
        return blocks[0]
    blocks = _convert_to_one_form(blocks)
    return blocks[0]._add(blocks)


def split_by_parameter(block: Block) -> list[DenseBlock]:
    """Return one block for each parameter of a block, written out."""
    sizes = [shape.numel() for _, shape in block.layout]
    parts = block.materialize().split(sizes, dim=2)
    return [DenseBlock((entry,), part) for entry, part in zip(block.layout, parts, strict=True)]


def _convert_to_one_form(blocks: Sequence[Block]) -> Sequence[Block]:
    """Return the blocks as they are if their forms are equal, and written out if not."""
    if len({block._form() for block in blocks}) == 1:
        return blocks
    return [block.dense() for block in blocks]


def products_in_double(vectors: Tensor) -> Tensor:
    """Return sum_w vectors[n,o,w] vectors[n,p,w], of shape (n, o, p), float64."""
    step = max(1, _DOUBLE_ELEMENTS // max(1, vectors[:1].numel()))
    doubled = (part.double() for part in vectors.split(step))
    return torch.cat([torch.bmm(part, part.mT) for part in doubled])


def _sketch_dense(gradients: Tensor, fourier: FourierMap) -> Tensor:
    """Return sum_orc S[f,o,r,c] J[n,o,rc] of one parameter, of shape (n, f)."""
    # rows[n,o,r,f] = sum_c J[n,o,rc] columns[c,f]
    rows = multiply_complex(gradients.unflatten(2, (len(fourier.rows), -1)), fourier.columns)
    return torch.einsum("norf,rf,of->nf", rows, fourier.rows, fourier.outputs)
