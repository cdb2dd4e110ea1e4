"""Linear maps from gradients in a derived tensor to gradients in the parameters behind it.

A tensor w may be derived from parameters without any sample, as a part of a parameter or a
normalised weight. With J_w the gradient in w and D = dw/dtheta, the gradient in the parameters is
J_theta = J_w D.

Index legend: q vectors; w elements of the derived tensor; p elements of a parameter.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .blocks import DenseBlock, squared_norms
from .layouts import Layout

# Number of elements that are mapped at a time (64 MiB in float32).
_MAPPED_ELEMENTS = 2**24

# Largest ratio of the gradients along the directions of the rows to their self-kernel for which
# they are subtracted from the squared norms.
_LARGEST_CANCELLATION = 64


class ParameterMap(abc.ABC):
    """The linear map D of a derived tensor.

    Attributes
    ----------
    layout : tuple of (str, Size)
        The parameters, by name.
    """

    layout: Layout

    @abc.abstractmethod
    def pull(self, vectors: Tensor) -> list[Tensor]:
        """Return v D for vectors v of shape (q, w), as (q, p) for each parameter."""

    @abc.abstractmethod
    def push(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Return D u for vectors u of shape (q, p) by parameter, as (q, w)."""

    def self_kernel(self, gradients: Tensor) -> Tensor:
        """Return <J_o D, J_p D>, of shape (n, o, p), from gradients J of shape (n, o, w)."""
        pulled = torch.cat(self.pull(gradients.flatten(0, 1)), dim=1)
        return DenseBlock(self.layout, pulled.unflatten(0, gradients.shape[:2])).self_kernel()

    @property
    def targets(self) -> Tensor | None:
        """Element of the parameter for each element w; None if w is no selection of elements."""
        return None


@dataclass(frozen=True)
class IdentityMap(ParameterMap):
    """Map of a tensor that is the parameter itself."""

    layout: Layout

    def pull(self, vectors: Tensor) -> list[Tensor]:
        return [vectors]

    def push(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return vectors[self.layout[0][0]]

    @property
    def targets(self) -> Tensor:
        return torch.arange(self.layout[0][1].numel())


class IndexMap(ParameterMap):
    """Map of a tensor whose elements are elements of one parameter: w[i] = p[indices[i]].

    Parameters
    ----------
    layout : tuple of one (str, Size)
        The parameter.
    indices : Tensor of shape (w,), int64
        Positions in the flattened parameter.
    """

    def __init__(self, layout: Layout, indices: Tensor):
        self.layout, self.indices = layout, indices

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IndexMap):
            return False
        return self.layout == other.layout and torch.equal(self.indices, other.indices)

    def __hash__(self) -> int:
        return hash((self.layout, len(self.indices)))

    def pull(self, vectors: Tensor) -> list[Tensor]:
        gradients = vectors.new_zeros(len(vectors), self.layout[0][1].numel())
        return [gradients.index_add(1, self.indices, vectors)]

    def push(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return vectors[self.layout[0][0]][:, self.indices]

    @property
    def targets(self) -> Tensor:
        return self.indices

    def is_transposition(self) -> bool:
        """Return whether the tensor is the transpose of a matrix."""
        shape = self.layout[0][1]
        if len(shape) != 2 or shape.numel() != len(self.indices):
            return False
        numbers = torch.arange(shape.numel(), device=self.indices.device)
        return torch.equal(self.indices, numbers.view(shape).T.flatten())


class AutogradMap(ParameterMap):
    """Map of a tensor that any differentiable function computes from the parameters.

    Parameters
    ----------
    layout : tuple of (str, Size)
        The parameters.
    derived : Tensor
        The derived tensor, with its autograd graph.
    parameters : list of Tensor
        The parameters, in the order of the layout.
    """

    def __init__(self, layout: Layout, derived: Tensor, parameters: list[Tensor]):
        self.layout, self._derived, self._parameters = layout, derived, parameters

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AutogradMap) and self._derived is other._derived

    def __hash__(self) -> int:
        return id(self._derived)

    def pull(self, vectors: Tensor) -> list[Tensor]:
        step = max(1, _MAPPED_ELEMENTS // max(1, sum(p.numel() for p in self._parameters)))
        parts = [self._pull(part) for part in vectors.split(step)]
        # Parameters behind a complex tensor are real.
        dtype = vectors.dtype.to_real()
        return [torch.cat(g).to(vectors.device, dtype) for g in zip(*parts, strict=True)]

    def _pull(self, vectors: Tensor) -> list[Tensor]:
        # The gradient of <v, w> in theta is v D.
        gradients = torch.autograd.grad(
            self._derived,
            self._parameters,
            vectors.to(self._derived).view(-1, *self._derived.shape),
            retain_graph=True,
            create_graph=torch.is_grad_enabled(),
            is_grads_batched=True,
            materialize_grads=True,
        )
        return [gradient.reshape(len(vectors), -1) for gradient in gradients]

    def push(self, vectors: Mapping[str, Tensor]) -> Tensor:
        # v D is linear in v, so the gradient of <v D, u> in v is D u.
        with torch.enable_grad():
            cotangent = torch.zeros_like(self._derived).requires_grad_()
            pulled = torch.autograd.grad(
                self._derived,
                self._parameters,
                cotangent,
                create_graph=True,
                materialize_grads=True,
            )
        dependent = [index for index, value in enumerate(pulled) if value.requires_grad]
        (pushed,) = torch.autograd.grad(
            [pulled[index] for index in dependent],
            cotangent,
            [
                vectors[self.layout[index][0]].to(self._derived).view(-1, *pulled[index].shape)
                for index in dependent
            ],
            retain_graph=True,
            create_graph=torch.is_grad_enabled(),
            is_grads_batched=True,
        )
        first = next(iter(vectors.values()))
        return pushed.reshape(len(first), -1).to(first)


class NormalizedMap(ParameterMap):
    """Map of a weight w_r = g_r v_r / |v_r| with rows of given lengths g and directions v.

    Index legend: r rows; c the elements of a row. With u_r = v_r / |v_r|, the gradient J_r in a row
    of w is mapped to the gradients J_r . u_r in g_r and (g_r / |v_r|) (J_r - (J_r . u_r) u_r) in
    v_r.

    Parameters
    ----------
    layout : tuple of two (str, Size)
        The parameters v and g.
    v, g : Tensor
        The parameters.
    dim : int
        Axis of v that the rows are indexed by; -1 if all of v is one row.
    """

    def __init__(self, layout: Layout, v: Tensor, g: Tensor, dim: int = 0):
        self.layout = layout
        # Order of the elements w in which each row is contiguous: (r, c) from the shape of v.
        self._shape, self._axis = v.shape, None if dim == -1 else dim
        rows = self._split_rows(v.flatten()[None])[0]
        norms = rows.square().sum(dim=1).sqrt()
        self._directions, self._scales = rows / norms[:, None], g.flatten() / norms

    def _split_rows(self, vectors: Tensor) -> Tensor:
        """Return vectors (q, w) as (q, r, c)."""
        if self._axis is None:
            return vectors[:, None]
        axis = self._axis % len(self._shape) + 1
        rows = vectors.unflatten(1, self._shape).movedim(axis, 1)
        return rows.reshape(*rows.shape[:2], -1)

    def _join_rows(self, rows: Tensor) -> Tensor:
        """Return vectors (q, w) from (q, r, c)."""
        if self._axis is None:
            return rows.flatten(1)
        axis = self._axis % len(self._shape)
        others = [size for index, size in enumerate(self._shape) if index != axis]
        return rows.unflatten(2, others or (1,)).movedim(1, axis + 1).flatten(1)

    def _project(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return J_r . u_r for vectors J of shape (q, r, c), the directions and the scales."""
        directions, scales = self._directions.to(rows), self._scales.to(rows)
        return (rows * directions).sum(dim=2), directions, scales

    def pull(self, vectors: Tensor) -> list[Tensor]:
        rows = self._split_rows(vectors)
        lengths, directions, scales = self._project(rows)
        rows = (rows - lengths[..., None] * directions) * scales[:, None]
        return [self._join_rows(rows), lengths]

    def push(self, vectors: Mapping[str, Tensor]) -> Tensor:
        (v, _), (g, _) = self.layout
        rows = self._split_rows(vectors[v])
        lengths, directions, scales = self._project(rows)
        # D is symmetric in the rows: (g_r / |v_r|) (V_r - (V_r . u_r) u_r) + G_r u_r
        lengths = vectors[g] - lengths * scales
        return self._join_rows(rows * scales[:, None] + lengths[..., None] * directions)

    def self_kernel(self, gradients: Tensor) -> Tensor:
        if gradients.shape[1] > 1:
            return super().self_kernel(gradients)
        rows = self._split_rows(gradients[:, 0])
        lengths, _, scales = self._project(rows)
        # K = sum_r (J_r . u_r)^2 + (g_r / |v_r|)^2 (|J_r|^2 - (J_r . u_r)^2)
        scales, lengths = scales.double().square(), lengths.double().square()
        norms = squared_norms(rows)
        kernel = (lengths + scales * (norms - lengths)).sum(dim=1)
        # If the difference cancels, rounding errors are large relative to K. This includes NaN.
        bound = (scales * norms).sum(dim=1)
        inexact = torch.nonzero(~(bound < _LARGEST_CANCELLATION * kernel))[:, 0]
        if len(inexact):
            kernel[inexact] = super().self_kernel(gradients[inexact])[:, 0, 0]
        return kernel[:, None, None]


def are_disjoint(maps: list[ParameterMap]) -> bool:
    """Return whether each element of the parameters belongs to at most one element of one w.

    Then the maps preserve products: <J_w D, J_w' D> = <J_w, J_w'>.
    """
    taken: dict[str, Tensor] = {}
    for parameter_map in maps:
        targets = parameter_map.targets
        if targets is None:
            return False
        ((name, shape),) = parameter_map.layout
        counts = taken.setdefault(name, torch.zeros(shape.numel(), dtype=torch.uint8))
        counts += torch.bincount(targets.cpu(), minlength=shape.numel()).clamp(max=2).to(counts)
        # Counts of later maps could exceed the range of uint8.
        if bool((counts > 1).any()):
            return False
    return True
