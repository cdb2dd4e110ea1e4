"""Weighted means of labels and predictions: what estimators that look at labels have in common.

Index legend: n rows; m fitted rows; q columns of labels; a coordinates of the loss.
"""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils import check_consistent_length
from torch import Tensor

from .._gradients.engine import GradientEngine
from .._kernels.similarities import COUNTS, make_count
from .._networks.fingerprint import digest_samples
from .._networks.network import resolve_network
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.weighted_means import (
    LINEAR,
    METHODS,
    CountWeights,
    LinearWeights,
    WeightedSums,
    Weights,
    match_digests,
)
from ..estimators._base import BaseLabelledReference, Interval, StrOptions, check_is_fitted
from ..exceptions import NoNeighborsWarning, warn
from ._targets import Target, infer_target, require_network


class BaseLabelMeans(BaseLabelledReference):
    """Fitted rows with labels and predictions, and means of these by some weights.

    For estimators with parameters ``method``, ``threshold`` and ``alpha``.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseLabelledReference._parameter_constraints,
        "method": [StrOptions(set(METHODS))],
        "threshold": [Interval(numbers.Real, 0, 1, closed="left")],
        "alpha": [Interval(numbers.Real, 0, None, closed="neither")],
    }

    _task: Target
    _label_keys: list[Hashable]
    _linear: dict[tuple[str, bool], LinearWeights]

    method: str
    threshold: float
    alpha: float

    def _fit_weights(self, X: Any, y: Any) -> None:
        """Train the network where it is not, and weigh the labels."""
        for name in ("_task", "_linear"):
            self.__dict__.pop(name, None)
        X, source = self._fit_network(X, y)
        self._task = infer_target(source, X, y)
        self._digests, self._label_keys = digest_samples(X, source.dtype), self._task.label_keys(y)
        self.n_samples_fit_ = len(self._digests)
        self._fit_projection(source, X)
        self._values = self._fitted_values(source, X, y)
        source = self._make_source() if self._by_matrices() else source
        source, self._rows = self._project(source, X)
        whitening = LINEAR.get(self.method)
        if whitening is not None:
            fitted = LinearWeights.fit(
                source, self._rows, self._laid_out(), whitening, self.verbose
            )
            self._linear = {(self.method, self._by_matrices()): fitted}

    def _fit_projection(self, source: Source, X: Any) -> None:
        """Features know no lengths: where these count, similarities are exact."""
        if self.method != "unnormalized":
            return super()._fit_projection(source, X)
        self._projection, self.kernel_error_ = None, 0.0

    def _choose_output(self) -> Any:
        """Of weights that are matrices, the output whose gradients the loss sums."""
        fitted = hasattr(self, "_task") and self._by_matrices()
        return (
            self._task.compared_output(resolve_network(self.estimator_)) if fitted else self.output
        )

    def _by_matrices(self) -> bool:
        """Whether weights are K(x, x_j) itself, as the loss has it, rather than its trace."""
        return (
            self.method == "unnormalized"
            and not isinstance(self.estimator_, str)
            and isinstance(self.output, str)
            and self.output == "all"
        )

    def _predictions(self, X: Any) -> np.ndarray:
        """The network's own, of the fitted rows where X is None, of shape (n, q)."""
        network = require_network(self._make_source())
        if X is None:
            return self._labels_and_predictions(self._laid_out())[1]
        return self._task.predictions(network, Samples.of(X))

    def _fitted_values(self, source: Source, X: Any, y: Any) -> Tensor:
        """Labels and residuals of the fitted rows in coordinates, of shape (m, a, 2)."""
        labels = self._task.coordinates(self._task.values(y))
        residuals = np.zeros_like(labels)
        if isinstance(source, GradientEngine):
            residuals = self._task.coordinates(self._task.predictions(source, X)) - labels
        return torch.as_tensor(np.stack([labels, residuals], axis=2))

    def _laid_out(self) -> Tensor:
        """Values of the fitted rows as the weights take them, of shape (m, a, 2) or (m, 1, 2 a)."""
        return self._values if self._by_matrices() else self._values.mT.flatten(1)[:, None]

    def _weights(self) -> Weights:
        """Of the method and its level as they are now."""
        if self.method in LINEAR:
            return self._linear_weights()
        count = make_count(self.method, self.threshold, self.alpha)
        return CountWeights(count, self._rows, self._laid_out())

    def _linear_weights(self) -> LinearWeights:
        key = self.method, self._by_matrices()
        if key not in getattr(self, "_linear", {}):
            raise NotFittedError(
                f"method is {self.method!r} and output {self.output!r}, for which nothing was"
                " summed in fit; allowed is to change thresholds and powers after fit: call fit"
                " again."
            )
        return self._linear[key]

    def leave_one_out(self, X: Any, y: Any = None) -> np.ndarray:
        """Mean of the other samples' labels around each row.

        Predictions that have not seen a row's own label, as cleanlab asks for: of classes the
        ``pred_probs`` of its Datalab, with weights that are not negative.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows. A fitted row with the same bytes is left out of its own mean.
        y : array-like of shape (n_queries,) or (n_queries, n_columns), default=None
            Their labels, by which fitted rows with the same bytes are told apart; None: these are
            taken in the order of `fit`.

        Returns
        -------
        labels : ndarray of shape (n_queries, n_columns), float64
            In the unit of the labels; of classes, shares, see `transform`. The mean of all others
            where no other sample is similar.
        """
        check_is_fitted(self, "n_samples_fit_")
        X, source = self._check_X(X, reset=False), self._make_source()
        own = self._own_rows(digest_samples(X, source.dtype), y)
        sums, lost = self._sums(*self._project(source, X), own)
        return self._labels_and_predictions(sums.means(lost, self._mean_of_others(own)))[0]

    def _own_rows(self, digests: Sequence[bytes], y: Any) -> np.ndarray:
        """Which fitted row each row is, or -1: one with the same label, else any."""
        own = match_digests(self._digests, digests)
        if y is None:
            return own
        check_consistent_length(digests, y)
        fitted, asked = (
            list(zip(*pairs, strict=True))
            for pairs in ((self._digests, self._label_keys), (digests, self._task.label_keys(y)))
        )
        known = match_digests(fitted, asked)
        return np.where(known >= 0, known, own)

    def _mean_of_others(self, own: np.ndarray) -> Tensor:
        """Of all values without a row's own, of shape (n, a, s); of a single row its own."""
        values, known = self._laid_out(), torch.as_tensor(own >= 0)
        if len(values) == 1:
            return values.expand(len(own), -1, -1)
        total = values.sum(dim=0).repeat(len(own), 1, 1)
        total[known] -= values[torch.as_tensor(own)[known]]
        return total / (len(values) - known.double())[:, None, None]

    def _measured_stationarity(self) -> float | None:
        if not self._by_matrices():
            return None
        found = self._linear_weights().gathered(-1)
        if found > 1:
            warn(
                "The network is not at a stationary point of its loss: the gradients of the"
                f" samples add up to {found:.3g} times what they would if they pointed anywhere;"
                " means of labels and of predictions then differ by more than the noise that is"
                " left: train it longer, without weight decay or early stopping.",
                ConvergenceWarning,
            )
        return found

    def _queries(self, X: Any) -> tuple[Source, Any]:
        """Validated rows, or the fitted ones, as the weights take them."""
        check_is_fitted(self, "n_samples_fit_")
        if X is not None:
            return self._project(self._make_source(), self._check_X(X, reset=False))
        return self._make_fitted_source(self._make_source()), self._rows

    def _sums(
        self, source: Source, rows: Any, own: np.ndarray | None = None, squared: bool = False
    ) -> tuple[WeightedSums, Tensor]:
        """Sums around the rows, and where they say nothing, which is reported."""
        sums = self._weights().sums(source, rows, own, squared, self.verbose)
        lost = sums.lost(torch.finfo(source.dtype).eps)
        if lost.any():
            parameter = COUNTS.get(self.method)
            cure = (
                "method='power' does not cancel"
                if parameter is None
                else f"a lower {parameter} reaches further"
            )
            warn(
                f"{int(lost.sum())} of {len(lost)} samples have no similar sample, or weights that"
                f" sum to nothing: they get the mean of all labels ({cure}).",
                NoNeighborsWarning,
            )
        return sums, lost

    def _means(self, sums: WeightedSums, lost: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Means of labels and of predictions, of shape (n, q) each."""
        return self._labels_and_predictions(sums.means(lost, self._laid_out().mean(dim=0)))

    def _labels_and_predictions(self, values: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Values as the weights take them, as labels and predictions of shape (n, q)."""
        pairs = values if self._by_matrices() else values.unflatten(2, (2, -1))[:, 0].mT
        labels, residuals = pairs.numpy().transpose(2, 0, 1)
        return (
            self._task.from_coordinates(labels),
            self._task.from_coordinates(labels + residuals),
        )
