"""Source of Jacobians of one output from gradient features, in place of a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._kernels.blocks import DenseBlock
from .._kernels.jacobian import Jacobian
from .._networks.fingerprint import digest_samples, fingerprint_samples
from .._networks.memory import CHUNK, memory_budget
from .._networks.samples import Samples

# Largest length of a feature vector. Exact vectors have the length 1, Nystroem vectors at most 1;
# vectors of short sketches may be longer.
_LONGEST = 2


class FeatureSource:
    """Source of Jacobians from gradient features, which are not normalised again.

    Parameters
    ----------
    dtype : dtype
        Dtype of the gradients from which the features were computed.
    n_jobs : int or None, default=1
        Number of workers for passes over the samples. A copy in a worker has n_jobs=1.
    """

    # Largest number of samples per chunk.
    _CHUNK_SAMPLES = 1024

    def __init__(self, dtype: torch.dtype = torch.float64, n_jobs: int | None = 1):
        self.dtype = dtype
        self.n_jobs = n_jobs

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.dtype,)

    def jacobians(
        self, X: Samples, start: int = 0, factored: bool = False
    ) -> Iterator[tuple[slice, Jacobian]]:
        """Yield the features of the samples from ``start`` on as Jacobians, chunk by chunk."""
        step = self._count_affordable_samples(X)
        for first in range(start, len(X), step):
            chunk = slice(first, min(first + step, len(X)))
            features = check_features(X.take_finite(chunk)).to(self.dtype)
            layout = (("features", features.shape[1:]),)
            block = DenseBlock(layout, features[:, None])
            yield chunk, FeatureJacobian({("features",): block}, layout, features[:, :1])

    def _count_affordable_samples(self, X: Samples) -> int:
        """Return the number of samples per chunk that fit in the memory budget."""
        first = check_features(X.take_finite(slice(0, 1))).to(self.dtype)
        # Three times the features: as read, in the dtype of the gradients, and whitened.
        affordable = memory_budget(CHUNK) // max(1, 3 * first.numel() * first.element_size())
        return max(1, min(self._CHUNK_SAMPLES, affordable))

    def fingerprint(self, X: Samples) -> str:
        """Return a fingerprint of the features."""
        return self.fingerprint_of_samples(X)

    def fingerprint_of_samples(self, X: Samples) -> str:
        """Return a fingerprint of the features."""
        return fingerprint_samples(X, self.dtype)

    def digest(self, X: Samples, dtype: torch.dtype) -> list[bytes]:
        """Return a digest of each row."""
        return digest_samples(X, dtype)

    def check_samples_independent(self, X: Samples) -> None:
        """Do nothing, because features are not preprocessed."""

    def identity(self) -> str:
        """Return a constant, because the Jacobians depend on nothing but the samples."""
        return "features"


def check_features(features: Any) -> Tensor:
    """Return the features, or raise an error if they cannot be gradient features."""
    is_tensor = isinstance(features, Tensor)
    shape = f"rows of shape {tuple(features.shape[1:])}" if is_tensor else "several arrays"
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(
            "`X` must contain gradient features of shape (n_samples, n_features) if"
            f" estimator='features'; got {shape}. Pass the output of GradientFeaturizer."
        )
    longest = float(features.double().norm(dim=1).max())
    if longest > _LONGEST:
        raise ValueError(
            f"`X` must contain gradient features of a length of at most {_LONGEST} if"
            f" estimator='features'; got rows of length up to {longest:.3g}. Pass the output of"
            " GradientFeaturizer."
        )
    return features


class FeatureJacobian(Jacobian):
    """Gradient features as Jacobians, which are whitened already."""

    def roots(self, kernel: Tensor, inverted: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return 1 for all roots and ranks, so that features are not whitened again."""
        ones = kernel.new_ones(kernel.shape)
        rank = ones[:, 0, 0].long()
        return ones, rank, torch.zeros_like(rank)
