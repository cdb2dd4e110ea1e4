"""Eigenvectors and eigenvalues of the curvature from Kronecker factors: K-FAC and EK-FAC.

The curvature H = 1/N sum_no G_no^T G_no is taken to be zero between groups of parameters. In a
weight, whose gradient is G = sum_t e_t a_t^T, K-FAC takes activations and cotangents for
independent, and the terms of different positions for uncorrelated. Then H is the Kronecker product
of the second moments

    A = mean over samples and positions of a_t a_t^T, where a bias is one more activation equal to 1
    S = mean over samples of sum_ot e_ot e_ot^T

With A = R diag(A_i) R^T and S = L diag(S_j) L^T, the eigenvalues of H are S_j A_i, and the
coordinates of G in its eigenvectors are (L^T G R)_ji. EK-FAC keeps the eigenvectors and replaces
the eigenvalues by the means over samples of sum_o (L^T G_o R)_ji^2. Each group of a convolution has
its own A and S. The A of an embedding is diagonal, because its activations are one-hot. Padding
counts as positions.

The factors of layers with one position, and all eigenvalues of EK-FAC, are those of kronfluence.
With several positions, kronfluence also divides S by their number, so that the eigenvalues of K-FAC
have another scale than those of H and of EK-FAC.

A parameter that belongs to no such layer has e = J and a = 1. So its H is exact, or exact in the
blocks on its diagonal that `matrix_gradients.py` chooses.

References: J. Martens, R. Grosse, Optimizing Neural Networks with Kronecker-factored Approximate
Curvature, ICML 2015. R. Grosse, J. Martens, A Kronecker-factored Approximate Fisher Matrix for
Convolution Layers, ICML 2016. T. George et al., Fast Approximate Natural Gradient Descent in a
Kronecker-factored Eigenbasis, NeurIPS 2018. R. Eschenhagen et al., Kronecker-Factored Approximate
Curvature for Modern Neural Network Architectures, NeurIPS 2023; positions are those of its "expand"
setting.

Index legend: n samples (N of them); o outputs, here combinations of outputs; t positions; g groups;
j output and i input channels of a group; w one parameter, flattened.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._kernels.layouts import Layout, Order
from .._kernels.position_blocks import PositionBlock
from .._kernels.precision import full_precision
from .._networks.memory import SUMS, check_within_budget
from .._networks.samples import Samples
from .._passes.chunks import Source
from ..exceptions import UnsupportedNetworkError
from .matrix_gradients import MatrixForm, MatrixGradients, list_matrices, split_samples

_CURE = "Choose fewer `parameters`, or call sklearn.set_config with a larger `working_memory`"


@dataclass(frozen=True)
class Rotation:
    """Eigenvectors of the curvature in one group of parameters.

    Attributes
    ----------
    form : MatrixForm
        The form of the gradients as matrices.
    layout : tuple of one (str, Size)
        Name and shape of the coordinates.
    order : Order
        Order in which the coordinates, stored as (g, j, i), are arranged in the layout.
    left : Tensor of shape (g, j, j)
        The matrices L.
    right : Tensor of shape (g, i, i), or None
        The matrices R; None for the identity.
    """

    form: MatrixForm
    layout: Layout
    order: Order
    left: Tensor
    right: Tensor | None

    def rotate(self, block: PositionBlock) -> PositionBlock:
        """Return the block of the coordinates L^T G R."""
        return block.rotate(self.left, self.right)


@dataclass(frozen=True)
class Eigenbasis(Rotation):
    """Eigenvectors and eigenvalues of the curvature in one group of parameters, in float64.

    Attributes
    ----------
    eigenvalues : Tensor of shape (g, j, i), float64
        The eigenvalues of H, at least 0.
    """

    eigenvalues: Tensor


@dataclass
class _Moments:
    """Sums of the second moments of activations and cotangents over the samples.

    Attributes
    ----------
    form, layout, order
        See `Rotation`.
    activations, cotangents : Tensor or float
        The sums; 0.0 before the first addition.
    positions : int
        Number of positions of all samples.
    """

    form: MatrixForm
    layout: Layout
    order: Order
    activations: Any = 0.0
    cotangents: Any = 0.0
    positions: int = 0

    @property
    def nbytes(self) -> int:
        """Size in bytes of the sums, of their eigenvectors, and of the eigenvalues, twice."""
        groups, rows, columns = self.form.matrix_shape
        squares = rows**2 + (columns if self.form.is_diagonal else columns**2)
        return 16 * groups * (squares + rows * columns)

    def add(self, block: PositionBlock) -> None:
        """Add the moments of some samples."""
        self.activations += block.activation_moments()
        self.cotangents += block.cotangent_moments()
        self.positions += len(block.cotangents) * block.positions

    def decompose(self, samples: int) -> Eigenbasis:
        """Return the eigenvectors, and the eigenvalues S_j A_i."""
        eigenvalues, left = torch.linalg.eigh(self.cotangents / samples)
        factors, right = self.activations / self.positions, None
        if factors.ndim == 3:
            factors, right = torch.linalg.eigh(factors)
        # Rounding may make an eigenvalue negative.
        products = eigenvalues.clamp_min(0)[:, :, None] * factors.clamp_min(0)[:, None]
        return Eigenbasis(self.form, self.layout, self.order, left, right, products)


def fit_eigenbases(
    source: Source, X: Samples, weights: Any, corrected: bool
) -> dict[str, Eigenbasis]:
    """Return the eigenvectors and eigenvalues of each group of parameters, by name.

    See `fit_kronecker` for the parameters. EK-FAC passes over the samples a second time.
    """
    bases = {name: own.decompose(len(X)) for name, own in _sum_moments(source, X, weights).items()}
    if not corrected:
        return bases
    squares = {name: torch.zeros_like(basis.eigenvalues) for name, basis in bases.items()}
    for matrices in _iterate_matrices(source, X, weights):
        for name, own in matrices.items():
            # sums[g,j,i] = sum_no (L^T G_no R)[g,j,i]^2
            squares[name] += bases[name].rotate(own.block).sum_squares()
    return {
        name: replace(basis, eigenvalues=squares[name] / len(X)) for name, basis in bases.items()
    }


def _sum_moments(source: Source, X: Samples, weights: Any) -> dict[str, _Moments]:
    """Return the sums of the second moments of each group of parameters, by name."""
    moments: dict[str, _Moments] = {}
    for matrices in _iterate_matrices(source, X, weights):
        _check_forms(moments, matrices)
        for name, own in matrices.items():
            if name not in moments:
                moments[name] = _Moments(own.form, own.block.layout, own.block.matrix_order)
                _check_size(moments.values(), own.block.cotangents.device)
        for name, own in matrices.items():
            moments[name].add(own.block)
    return moments


def _iterate_matrices(
    source: Source, X: Samples, weights: Any
) -> Iterator[dict[str, MatrixGradients]]:
    """Yield the gradients of some samples after the other as matrices, without a graph."""
    for _, jacobian in source.jacobians(X.with_labels(weights), factored=True):
        for part in split_samples(jacobian, keeps_factors=True):
            with torch.no_grad(), full_precision(part.outputs.device):
                yield list_matrices(part)


def _check_forms(moments: Mapping[str, _Moments], matrices: Mapping[str, MatrixGradients]) -> None:
    """Raise an error if parameters have gradients of another form than in earlier chunks."""
    known = {name for own in moments.values() for name in own.form.sizes}
    for name, own in matrices.items():
        is_new = name not in moments and known.isdisjoint(own.form.sizes)
        if not is_new and (name not in moments or moments[name].form != own.form):
            raise UnsupportedNetworkError(
                "`estimator` must use its parameters in the same way for all samples, because the"
                " curvature is approximated by factors of its layers; got another use of"
                f" {min(own.form.sizes)!r} for some samples than for others. Set curvature='ggn',"
                " or leave the parameter out of `parameters`."
            )


def _check_size(moments: Collection[_Moments], device: torch.device) -> None:
    """Raise an error if the factors of all groups exceed their share of the memory budget."""
    needed = sum(own.nbytes for own in moments)
    check_within_budget("The Kronecker factors of the parameters", needed, _CURE, device, SUMS)
