"""Damped inverse of the curvature from Kronecker factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._kernels.blocks import Block, DenseBlock
from .._kernels.jacobian import Jacobian
from .._kernels.position_blocks import PositionBlock
from .._kernels.precision import full_precision
from .._networks.samples import Samples
from .._passes.chunks import Source
from .kronecker_factors import Eigenbasis, Rotation, fit_eigenbases
from .matrix_gradients import MatrixGradients, list_matrices, split_samples, write_parameters
from .sources import Ridge, compute_mean_eigenvalue

#: Blocks by the names of the parameters.
Blocks = dict[tuple[str, ...], Block]


@dataclass(frozen=True)
class Preconditioner(Rotation):
    """Map of the gradients in one group of parameters to coordinates of (H + lambda)^{-1/2} G.

    Attributes
    ----------
    scales : Tensor of shape (g, j, i)
        The eigenvalues of (H + lambda)^{-1/2}.
    """

    scales: Tensor

    def apply(self, block: PositionBlock) -> Block:
        """Return the coordinates of gradients in the form of those at the fitted samples."""
        return self.rotate(block).scale(self.scales)

    def apply_written(self, gradients: Mapping[str, Tensor], outputs: Tensor) -> DenseBlock:
        """Return the coordinates of gradients written out, of shape (n o, w) by parameter.

        The outputs have the shape (n, o). A parameter without gradients counts as zero.
        """
        zeros = {
            name: outputs.new_zeros(outputs.numel(), size)
            for name, size in self.form.sizes.items()
            if name not in gradients
        }
        matrices = self.form.arrange({**gradients, **zeros})
        coordinates = self.left.mT.to(matrices) @ matrices
        if self.right is not None:
            coordinates = coordinates @ self.right.to(matrices)
        coordinates *= self.scales.to(matrices)
        return DenseBlock(self.layout, coordinates.view(*outputs.shape, -1), self.order)


def make_preconditioner(basis: Eigenbasis, damping: float, dtype: torch.dtype) -> Preconditioner:
    """Return the map for a number lambda and a dtype of the gradients.

    Its tensors are on the CPU, so that it can be unpickled on a machine without the device.
    """
    right = None if basis.right is None else basis.right.to("cpu", dtype)
    scales = (basis.eigenvalues + damping).rsqrt().to("cpu", dtype)
    left = basis.left.to("cpu", dtype)
    return Preconditioner(basis.form, basis.layout, basis.order, left, right, scales)


class KroneckerRidge(Ridge):
    """Damped inverse (H + lambda)^{-1} with a block of H for each group of parameters.

    The number lambda of a block is a multiple of the mean eigenvalue of this block, as in
    kronfluence. If the eigenvalues of a block are all zero, it is the same multiple of the mean
    eigenvalue of all blocks.

    Parameters
    ----------
    bases : dict of str to Eigenbasis
        Eigenvectors and eigenvalues of each block, by name.
    damping : float > 0
        The multiple.
    dtype : dtype
        The dtype of the gradients.

    Attributes
    ----------
    damping : float
        The number lambda of a block without a curvature.
    """

    def __init__(self, bases: Mapping[str, Eigenbasis], damping: float, dtype: torch.dtype):
        elements = sum(basis.eigenvalues.numel() for basis in bases.values())
        total = sum(float(basis.eigenvalues.sum()) for basis in bases.values())
        self.damping = damping * compute_mean_eigenvalue(total, elements)
        self._preconditioners = {
            name: make_preconditioner(
                basis, damping * float(basis.eigenvalues.mean()) or self.damping, dtype
            )
            for name, basis in bases.items()
        }

    @property
    def n_features(self) -> int:
        """Number of coordinates of all blocks."""
        return sum(own.scales.numel() for own in self._preconditioners.values())

    def jacobians(
        self,
        source: Source,
        X: Samples,
        start: int = 0,
        factored: bool = False,
        products: Any = None,
    ) -> Iterator[tuple[slice, Jacobian]]:
        """Yield the preconditioned Jacobians of the samples from ``start`` on.

        Most of them are written out, so the chunks of the source are split into smaller ones.
        """
        for rows, jacobian in source.jacobians(X, start, factored=True):
            first = rows.start
            for part in split_samples(jacobian, keeps_factors=False):
                yield slice(first, first + len(part)), self.precondition(part)
                first += len(part)

    def precondition(self, jacobian: Jacobian) -> Jacobian:
        """Return the coordinates of (H + lambda)^{-1/2} G, with G = J(x) for each sample.

        Their inner products are G (H + lambda)^{-1} G'^T.
        """
        with torch.no_grad(), full_precision(jacobian.outputs.device):
            blocks = self._precondition_blocks(jacobian)
        layout = tuple(entry for block in blocks.values() for entry in block.layout)
        return replace(jacobian, blocks=blocks, layout=layout)

    def _precondition_blocks(self, jacobian: Jacobian) -> Blocks:
        matrices = list_matrices(jacobian)
        blocks: Blocks = {}
        others = {}
        for name, own in self._preconditioners.items():
            if name in matrices and matrices[name].form == own.form:
                blocks[name,] = own.apply(matrices.pop(name).block)
            else:
                others[name] = own
        # Gradients in another form than at the fitted samples are written out.
        names = {parameter for own in matrices.values() for parameter in own.form.sizes}
        written = write_parameters(jacobian, names)
        for name, own in others.items():
            if not written.keys().isdisjoint(own.form.sizes):
                blocks[name,] = own.apply_written(written, jacobian.outputs)
        return blocks | self._scale_unknown(matrices)

    def _scale_unknown(self, matrices: Mapping[str, MatrixGradients]) -> Blocks:
        """Return lambda^{-1/2} G for parameters whose gradients are zero at all fitted samples."""
        preconditioners = self._preconditioners.values()
        known = {parameter for own in preconditioners for parameter in own.form.sizes}
        return {
            (name,): own.block.scale(torch.full(own.form.matrix_shape, self.damping).rsqrt())
            for name, own in matrices.items()
            if known.isdisjoint(own.form.sizes)
        }


def fit_kronecker(
    source: Source, X: Samples, weights: Any, damping: float, corrected: bool
) -> KroneckerRidge:
    """Return the ridge of the fitted samples.

    Parameters
    ----------
    source : Source
        The source of the gradients G_no of combinations o of outputs.
    X : Samples of length N
        The fitted samples.
    weights : array-like or None
        Weights of the outputs in the combinations, which are the labels of the source. The
        curvature is H = 1/N sum_no G_no^T G_no.
    damping : float > 0
        The number lambda, in units of the mean eigenvalue of each block.
    corrected : bool
        True for EK-FAC, False for K-FAC, see `kronecker_factors.py`.
    """
    bases = fit_eigenbases(source, X, weights, corrected)
    return KroneckerRidge(bases, damping, source.dtype)
