"""Damped inverse of the curvature from Kronecker factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from .._kernels.blocks import Block
from .._kernels.jacobian import Jacobian
from .._kernels.precision import full_precision
from .._networks.samples import Samples
from .._passes.chunks import Source
from ..exceptions import UnsupportedNetworkError
from .kronecker_factors import Eigenbasis, fit_eigenbases
from .matrix_gradients import MatrixGradients, list_matrices, split_samples, write_parameters
from .sources import Ridge

#: Blocks by the names of the parameters.
Blocks = dict[tuple[str, ...], Block]


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

    Attributes
    ----------
    damping : float
        The number lambda of a block without a curvature.
    """

    def __init__(self, bases: Mapping[str, Eigenbasis], damping: float):
        # A ridge can be unpickled on a machine without the device.
        self._bases = {name: basis.cpu() for name, basis in bases.items()}
        elements = self.n_features
        total = sum(float(basis.eigenvalues.sum()) for basis in bases.values())
        if not total > 0:
            raise UnsupportedNetworkError(
                "`estimator` must have a loss whose curvature is not zero at all fitted samples;"
                f" got a mean eigenvalue of {total / max(1, elements)}. Set curvature='none'."
            )
        self.damping = damping * total / elements
        self._dampings = {
            name: damping * float(basis.eigenvalues.mean()) or self.damping
            for name, basis in bases.items()
        }

    @property
    def n_features(self) -> int:
        """Number of coordinates of all blocks."""
        return sum(basis.eigenvalues.numel() for basis in self._bases.values())

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
        for name, basis in self._bases.items():
            if name in matrices and matrices[name].form == basis.form:
                block = matrices.pop(name).block
                blocks[name,] = basis.precondition(block, self._dampings[name])
            else:
                others[name] = basis
        # Gradients in another form than at the fitted samples are written out.
        names = {parameter for own in matrices.values() for parameter in own.form.sizes}
        written = write_parameters(jacobian, names)
        for name, basis in others.items():
            if not written.keys().isdisjoint(basis.form.sizes):
                damping = self._dampings[name]
                blocks[name,] = basis.precondition_written(written, jacobian.outputs, damping)
        return blocks | self._scale_unknown(matrices)

    def _scale_unknown(self, matrices: Mapping[str, MatrixGradients]) -> Blocks:
        """Return lambda^{-1/2} G for parameters whose gradients are zero at all fitted samples."""
        known = {parameter for basis in self._bases.values() for parameter in basis.form.sizes}
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
    return KroneckerRidge(fit_eigenbases(source, X, weights, corrected), damping)
