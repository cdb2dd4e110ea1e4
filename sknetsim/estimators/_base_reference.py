"""Base classes of the estimators that compare queries with the fitted samples."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

from sklearn.utils import Tags, check_random_state

from .._features.nystroem import fit_nystroem
from .._features.projection import compute_features
from .._features.source import FeatureSource
from .._networks.samples import Samples
from .._passes.chunks import Source
from ._base import BaseSimilarity, Interval


class BaseReference(BaseSimilarity):
    """Base class of estimators that compare queries with the fitted samples.

    With ``n_components``, they compare Nyström features; without it, the comparison is exact.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSimilarity._parameter_constraints,
        "n_components": [Interval(numbers.Integral, 1, None, closed="left"), None],
    }

    def _fit_network(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[Samples, Source]:
        samples, source = super()._fit_network(X, y, sample_weight)
        if self._fitted_network is not None:
            self._fitted_network.record_outputs(source, samples)
        return samples, source

    def _fit_projection(self, source: Source, X: Samples) -> None:
        """Draw the landmarks if ``n_components`` is given, and set ``kernel_error_``."""
        self._projection = None
        self.kernel_error_ = 0.0
        if self.n_components is not None:
            generator = check_random_state(self.random_state)
            self._projection = fit_nystroem(source, X, self.n_components, 0.0, generator)
            self.kernel_error_ = self._projection.kernel_error

    def _project(self, source: Source, X: Samples) -> tuple[Source, Samples]:
        """Return the features of X and their source; without ``n_components``, X and its source."""
        if self._projection is None:
            return source, X
        self._check_unchanged(source)
        features = compute_features(self._projection, source, X, verbose=self.verbose)
        return FeatureSource(source.dtype, source.n_jobs), Samples(features)

    def _make_fitted_source(self, source: Source) -> Source:
        """Return the source that `_project` returned for the fitted samples."""
        if self._projection is None:
            return source
        self._check_unchanged(source)
        return FeatureSource(source.dtype, source.n_jobs)


class BaseLabelledReference(BaseReference):
    """Base class of estimators that need labels even if the network is already trained.

    With ``output="loss"``, they compare losses at the predicted labels: at the given ones, the
    similarity of two samples would depend on the labels that are judged by it.
    """

    _uses_labels = False

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
