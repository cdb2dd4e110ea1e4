"""Data-independent features: tensor sketches of the Jacobians.

The count sketch of an entry J[n,o,rc] adds s_o s_r s_c J[n,o,rc] to the feature h_o + h_r + h_c
modulo m. Adding h_o, h_r and h_c modulo m is a circular convolution, so in the Fourier domain it is
a product: S[n,f] = sum_orc J[n,o,rc] P_o[f] P_r[f] P_c[f], with the phases P_r[f] =
s_r exp(-2 pi i h_r f / m), and P_o and P_c likewise. Blocks compute S from their factors, without
forming J, and the features are its inverse transform.

Index legend: n samples; o outputs of the network (d of them); f frequencies 0, ..., m // 2; m the
number of features; r, c a parameter's first axis and its other axes, flattened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._kernels.jacobian import Jacobian
from .._kernels.layouts import FourierMap
from .._networks.memory import SKETCH, memory_budget
from .._networks.samples import Samples
from .._passes.chunks import Source, iterate_chunks, with_progress
from .._passes.reductions import gram_matrix
from .projection import allocate_features, off_diagonal_error, warn_if_missed

# Largest number of samples on whose pairs the kernel error is measured.
_MEASURED = 256

# Smallest and largest number of features if n_components="auto".
_LEAST, _MOST = 64, 2**16


@dataclass(frozen=True)
class TensorSketch:
    r"""Features by count sketches of activations and cotangents, see [1]_.

    The entry of the Jacobian at output o, row r and column c of a parameter is added, with the sign
    :math:`s_o s_r s_c`, to the feature :math:`h_o + h_r + h_c` modulo m. The places h and the signs
    s are random and drawn once. Inner products of features are unbiased estimates of k^C, with a
    standard deviation of the order of :math:`1 / \sqrt{m}`.

    Attributes
    ----------
    n_components : int
        The number m of features.
    seed : int
        Seed of the places and signs, so that the map is the same for every part of the data.
    kernel_error : float
        Root mean squared error of the similarity of different fitted samples, on which the map does
        not depend.
    whitening : str
        Whitening of the Jacobians before they are sketched, one of `WHITENINGS`.

    References
    ----------
    .. [1] N. Pham, R. Pagh, "Fast and scalable polynomial kernels via explicit feature maps",
       KDD 2013.
    """

    n_components: int
    seed: int
    kernel_error: float = 0.0
    whitening: str = "unit"

    def transform(self, source: Source, X: Samples, verbose: Any = 0) -> np.ndarray:
        """Return features of shape (n, m), in the dtype of the gradients."""
        features = allocate_features(source, len(X), self.n_components)
        maps: dict[str, FourierMap] = {}
        chunks = iterate_chunks(source, X, self.whitening)
        for chunk in with_progress(chunks, len(features), verbose):
            maps = maps or self._draw_maps(chunk.jacobian)
            for part in chunk.split(self._count_rows(chunk.jacobian)):
                # S[n,f] = sum_orc J^[n,o,rc] P_o[f] P_r[f] P_c[f], summed over all parameters
                spectrum = part.whitened().jacobian.sketch(maps)
                # features[n,:] = inverse real Fourier transform of S[n,:], of length m
                features[part.rows] = torch.fft.irfft(spectrum, self.n_components).cpu().numpy()
        return features

    def _count_rows(self, jacobian: Jacobian) -> int:
        """Return how many samples are sketched at a time, from the share of the memory budget."""
        # Each of a sample's vectors has m // 2 + 1 complex numbers, and is needed twice.
        vectors = max((block.sketched_vectors for block in jacobian.blocks.values()), default=1)
        taken = 2 * vectors * (self.n_components + 2) * jacobian.outputs.element_size()
        return max(1, memory_budget(SKETCH, jacobian.outputs.device) // taken)

    def _draw_maps(self, jacobian: Jacobian) -> dict[str, FourierMap]:
        """Return the phases P_o, P_r and P_c of each parameter."""
        outputs = jacobian.outputs
        maps = {}
        for index, (name, shape) in enumerate(jacobian.layout):
            generator = np.random.default_rng([self.seed, index])
            rows = shape[0] if len(shape) else 1
            sizes = (outputs.shape[1], rows, math.prod(shape) // max(1, rows))
            phases = (self._draw_phases(size, generator, outputs) for size in sizes)
            maps[name] = FourierMap(*phases)
        return maps

    def _draw_phases(self, size: int, generator: np.random.Generator, like: Tensor) -> Tensor:
        """Return the transforms of ``size`` signed unit impulses, of shape (size, f)."""
        places = generator.integers(self.n_components, size=size)
        signs = generator.choice([-1.0, 1.0], size=size)
        # h f modulo m is computed in integers, so that large products lose no digit.
        products = np.outer(places, np.arange(self.n_components // 2 + 1)) % self.n_components
        # P_r[f] = s_r exp(-2 pi i h_r f / m)
        phases = signs[:, None] * np.exp(-2j * np.pi * products / self.n_components)
        return torch.as_tensor(phases).to(like.device, like.dtype.to_complex())


def fit_sketch(
    source: Source,
    X: Samples,
    n_components: int | str,
    kernel_error: float,
    random_state: np.random.RandomState,
) -> TensorSketch:
    """Return a sketch with ``n_components`` features.

    "auto" doubles the number of features until the error is at most ``kernel_error``.
    """
    seed = int(random_state.randint(2**31))
    measured = np.sort(random_state.permutation(len(X))[:_MEASURED]).tolist()
    samples = X.select(measured)
    gram = gram_matrix(source, samples)
    size = _LEAST if isinstance(n_components, str) else int(n_components)
    while True:
        sketch = TensorSketch(size, seed)
        features = sketch.transform(source, samples).astype(np.float64)
        # difference[n,n'] = sum_m features[n,m] features[n',m] - k^C(x_n, x_n')
        error = off_diagonal_error(features @ features.T - gram)
        if n_components != "auto" or error <= kernel_error or size >= _MOST:
            break
        size *= 2
    if n_components == "auto":
        warn_if_missed(error, kernel_error, size, "choose method='nystroem'")
    return replace(sketch, kernel_error=error)
