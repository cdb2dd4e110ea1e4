"""Weights of the fitted samples, and the means of labels and predictions that they give.

Index legend: n queries; m fitted samples; q columns of the values of labels; a coordinates of the
values (see `Target`); w axis of the weights, which is a if weights are matrices, and 1 if they are
numbers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_consistent_length
from torch import Tensor

from .._gradients.engine import GradientEngine
from .._kernels.similarities import Count
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.weighted_means import CountWeights, LinearWeights, WeightedSums, match_digests
from ._targets import Target


@dataclass(frozen=True)
class LabelWeights:
    """Fitted samples with their labels and predictions, and their weights around queries.

    Attributes
    ----------
    target : Target
        Meaning of the labels.
    samples : Samples
        The fitted samples, or their features.
    digests : sequence of bytes, of length m
        Digests of the fitted samples.
    label_keys : sequence of hashable, of length m
        Keys of their labels, see `Target.label_keys`.
    values : Tensor of shape (m, a, 2), float64
        Coordinates of their labels, and of their residuals (predictions minus labels).
    linear : LinearWeights or None
        Weights by a method that is linear in the gradients, if `fit` computed their sums.
    count : Count or None
        Weights by the similarity of each pair. None: those of ``linear``.
    """

    target: Target
    samples: Samples
    digests: Sequence[bytes]
    label_keys: Sequence[Hashable]
    values: Tensor
    linear: LinearWeights | None = None
    count: Count | None = None

    def with_linear(
        self, source: Source, whitening: str, matrices: bool, verbose: Any
    ) -> LabelWeights:
        """Return a copy with weights K(x, x_j), or their traces unless ``matrices``.

        The sums over the fitted samples are computed in one pass.
        """
        values = self._arrange(self.values.shape[1] if matrices else 1)
        return replace(
            self, linear=LinearWeights.fit(source, self.samples, values, whitening, verbose)
        )

    def with_count(self, count: Count) -> LabelWeights:
        """Return a copy with weights count(k^C(x, x_j))."""
        return replace(self, count=count)

    @property
    def predictions(self) -> np.ndarray:
        """Predictions for the fitted samples, of shape (m, q)."""
        return self._split(self.values)[1]

    def sums(
        self,
        source: Source,
        queries: Samples,
        own: np.ndarray | None = None,
        squared: bool = False,
        verbose: Any = 0,
    ) -> WeightedSums:
        """Return the weighted sums around the queries.

        The fitted sample ``own[n]`` is left out of the sums around query n; -1 leaves out none.
        With ``squared``, the sums of the squared weights are computed too.
        """
        if self.count is None:
            assert self.linear is not None
            return self.linear.sums(source, queries, own, squared, verbose)
        weights = CountWeights(self.count, self.samples, self._arranged_values)
        return weights.sums(source, queries, own, squared, verbose)

    def means(self, sums: WeightedSums, singular: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted means of labels and of predictions, of shape (n, q) each.

        Singular queries (see `WeightedSums.is_singular`) get the mean of all fitted samples.
        """
        # E_k[v] = (sum_j W_j)^{-1} sum_j W_j v_j, or sum_j v_j / m
        return self._split(sums.means(singular, self._arranged_values.mean(dim=0)))

    def means_of_others(self, sums: WeightedSums, singular: Tensor, own: np.ndarray) -> np.ndarray:
        """Return the weighted means of labels, of shape (n, q), from sums without ``own``.

        Singular queries get the mean of all fitted samples except the one in ``own``.
        """
        return self._split(sums.means(singular, self._mean_without(own)))[0]

    def match(self, digests: Sequence[bytes], y: Any) -> np.ndarray:
        """Return the fitted sample that equals each query, or -1, of shape (n,).

        Among fitted samples with equal digests, one with the query's label is preferred.
        """
        own = match_digests(self.digests, digests)
        if y is None:
            return own
        check_consistent_length(digests, y)
        fitted = list(zip(self.digests, self.label_keys, strict=True))
        queries = list(zip(digests, self.target.label_keys(y), strict=True))
        labelled = match_digests(fitted, queries)
        return np.where(labelled >= 0, labelled, own)

    @property
    def _arranged_values(self) -> Tensor:
        """Values in the shape that the current weights take, see `_arrange`."""
        linear = self.linear if self.count is None else None
        return self._arrange(1 if linear is None else linear.values.shape[1])

    def _arrange(self, width: int) -> Tensor:
        """Return the values for weights of shape (w, w).

        Matrices multiply the coordinates, so the values have shape (m, a, 2). Numbers weigh all
        coordinates alike, so the values have shape (m, 1, 2 a), with all labels before all
        residuals.
        """
        if width > 1:
            return self.values
        return self.values.mT.flatten(1)[:, None]

    def _mean_without(self, own: np.ndarray) -> Tensor:
        """Return the mean of all values except those of ``own[n]`` for query n, (n, w, s).

        If there is only one fitted sample, the mean is the value of that sample.
        """
        values, is_fitted = self._arranged_values, torch.as_tensor(own >= 0)
        if len(values) == 1:
            return values.expand(len(own), -1, -1)
        # (sum_j v_j - v_own) / (m - 1), or sum_j v_j / m for a query that was not fitted
        total = values.sum(dim=0).repeat(len(own), 1, 1)
        total[is_fitted] -= values[torch.as_tensor(own)[is_fitted]]
        return total / (len(values) - is_fitted.double())[:, None, None]

    def _split(self, values: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and predictions, of shape (n, q) each, from values in either shape."""
        coordinates = self.values.shape[1]
        if values.shape[1] != coordinates:
            # (n, 1, 2 a) -> (n, a, 2)
            values = values.unflatten(2, (2, coordinates))[:, 0].mT
        labels, residuals = values.numpy().transpose(2, 0, 1)
        # prediction = label + residual
        return (
            self.target.from_coordinates(labels),
            self.target.from_coordinates(labels + residuals),
        )


def compute_values(target: Target, source: Source, X: Samples, y: Any) -> Tensor:
    """Return the coordinates of labels and residuals, of shape (m, a, 2), float64.

    Residuals are predictions minus labels, and 0 if the source is not a network.
    """
    labels = target.coordinates(target.values(y))
    residuals = np.zeros_like(labels)
    if isinstance(source, GradientEngine):
        residuals = target.coordinates(target.predictions(source, X)) - labels
    return torch.as_tensor(np.stack([labels, residuals], axis=2))
