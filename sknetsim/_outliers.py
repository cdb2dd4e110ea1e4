"""Outliers by a log density, as scikit-learn's outlier detectors give them."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from sklearn.base import OutlierMixin

from ._base import Interval, StrOptions, check_is_fitted

# The share of outliers that "auto" expects, as scikit-learn's EllipticEnvelope does.
_AUTO = 0.1


class DensityOutlierMixin(OutlierMixin):
    """Rows less dense than a share of the fitted ones.

    For estimators with `score_samples`, a parameter ``contamination`` and fitted rows ``_X``.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "contamination": [StrOptions({"auto"}), Interval(numbers.Real, 0, 0.5, closed="right")],
    }

    contamination: Any

    @property
    def offset_(self) -> float:
        """The log density below which a row is an outlier, in nats.

        The share ``contamination`` of the fitted rows, each left out of its own density, lies
        below. Found when it is first asked for, by scoring the fitted rows.
        """
        check_is_fitted(self, "n_samples_fit_")
        if not self._offset:
            share = _AUTO if self.contamination == "auto" else self.contamination
            scores = self.score_samples(self._X)
            self._offset.append(float(np.percentile(scores, 100 * share)))
        return self._offset[0]

    _X: Any
    #: A list that `fit` empties: scikit-learn wants no attribute set in `predict`.
    _offset: list[float]

    def decision_function(self, X: Any) -> np.ndarray:
        """How much denser each row is than the least dense inlier.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows.

        Returns
        -------
        decision : ndarray of shape (n_queries,), float64
            `score_samples` less ``offset_``, in nats: negative for outliers.
        """
        scores: np.ndarray = self.score_samples(X)
        return scores - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Which rows are outliers.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_queries,), int64
            -1 for outliers, 1 for inliers.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)
