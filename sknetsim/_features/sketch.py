"""Data-independent features: tensor sketches of the gradients.

Index legend: n samples; o outputs of the network (d of them); f frequencies; m features; r, c a
parameter's first axis and its other axes, flattened.
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
from .._networks.samples import Samples, select_labels
from .._passes.chunks import Source, iterate_chunks, with_progress
from .._passes.reductions import gram_matrix
from .projection import allocate_features, off_diagonal_error, warn_if_missed

# The kernel's error is measured on the pairs of so many rows.
_MEASURED = 256

_LEAST, _MOST = 64, 2**16


@dataclass(frozen=True)
class TensorSketch:
    r"""Count sketches of activations and cotangents, combined by the Fourier transform [1]_.

    An entry of the Jacobian at output o, row r and column c of a parameter is added, with the sign
    :math:`s_o s_r s_c`, to the feature :math:`h_o + h_r + h_c` modulo m, all of them drawn once.
    Products of features are unbiased for k^C, with a standard deviation in the order of
    :math:`1 / \sqrt{m}`.

    Attributes
    ----------
    n_components : int
        The number m of features.
    seed : int
        What hashes and signs are drawn from: the same map for every shard of the data.
    kernel_error : float
        Root mean squared error of the similarity of fitted rows, none of which it has seen.
    whitening : str
        What becomes of the Jacobians first, one of `_kernels.WHITENINGS`.

    References
    ----------
    .. [1] N. Pham, R. Pagh, "Fast and scalable polynomial kernels via explicit feature maps",
       KDD 2013.
    """

    n_components: int
    seed: int
    kernel_error: float = 0.0
    whitening: str = "unit"

    def transform(self, source: Source, X: Samples, y: Any = None, verbose: Any = 0) -> np.ndarray:
        """Features of shape (n, m), in the dtype of the gradients."""
        features = allocate_features(source, len(X), self.n_components)
        maps: dict[str, FourierMap] = {}
        chunks = iterate_chunks(source, X, self.whitening, y)
        for chunk in with_progress(chunks, len(features), verbose):
            maps = maps or self._maps(chunk.jacobian)
            for part in chunk.split(self._rows(chunk.jacobian)):
                spectrum = part.whitened().jacobian.sketch(maps)
                features[part.rows] = torch.fft.irfft(spectrum, self.n_components).cpu().numpy()
        return features

    def _rows(self, jacobian: Jacobian) -> int:
        """Samples whose complex factors, twice, take an eighth of the budget."""
        vectors = max((block.sketched_vectors for block in jacobian.blocks.values()), default=1)
        taken = 2 * vectors * (self.n_components + 2) * jacobian.outputs.element_size()
        return max(1, memory_budget(SKETCH, jacobian.outputs.device) // taken)

    def _maps(self, jacobian: Jacobian) -> dict[str, FourierMap]:
        outputs = jacobian.outputs
        found = {}
        for index, (name, shape) in enumerate(jacobian.layout):
            generator = np.random.default_rng([self.seed, index])
            rows = shape[0] if len(shape) else 1
            sizes = (outputs.shape[1], rows, math.prod(shape) // max(1, rows))
            found[name] = FourierMap(*(self._phases(size, generator, outputs) for size in sizes))
        return found

    def _phases(self, size: int, generator: np.random.Generator, like: Tensor) -> Tensor:
        """The transform of ``size`` signed unit impulses, of shape (size, f)."""
        places = generator.integers(self.n_components, size=size)
        signs = generator.choice([-1.0, 1.0], size=size)
        # Turns are taken modulo one in integers, so that large products lose no digit.
        turns = np.outer(places, np.arange(self.n_components // 2 + 1)) % self.n_components
        phases = signs[:, None] * np.exp(-2j * np.pi * turns / self.n_components)
        return torch.as_tensor(phases).to(like.device, like.dtype.to_complex())


def fit_sketch(
    source: Source,
    X: Samples,
    y: Any,
    n_components: int | str,
    kernel_error: float,
    random_state: np.random.RandomState,
) -> TensorSketch:
    """A sketch of the size asked for, or of the one that the kernel's error needs ("auto")."""
    seed = int(random_state.randint(2**31))
    measured = np.sort(random_state.permutation(len(X))[:_MEASURED]).tolist()
    rows, labels = X.select(measured), select_labels(y, measured)
    gram = gram_matrix(source, rows, labels=(labels, labels))
    size = _LEAST if isinstance(n_components, str) else int(n_components)
    while True:
        sketch = TensorSketch(size, seed)
        features = sketch.transform(source, rows, labels).astype(np.float64)
        error = off_diagonal_error(features @ features.T - gram)
        if n_components != "auto" or error <= kernel_error or size >= _MOST:
            break
        size *= 2
    if n_components == "auto":
        warn_if_missed(error, kernel_error, size, "choose method='nystroem'")
    return replace(sketch, kernel_error=error)
