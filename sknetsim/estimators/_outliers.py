"""Outliers by a log density, as scikit-learn's outlier detectors give them."""

from __future__ import annotations

import abc
import numbers
from typing import Any, ClassVar

import numpy as np
from sklearn.base import OutlierMixin

from ._base import Interval, StrOptions, check_is_fitted

# The share of outliers that "auto" expects, as scikit-learn's EllipticEnvelope does.
_AUTO = 0.1


class DensityOutlierMixin(OutlierMixin):
    """Rows less dense than a share of the fitted ones.

    For estimators with a parameter ``contamination``.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "contamination": [StrOptions({"auto"}), Interval(numbers.Real, 0, 0.5, closed="right")],
    }

    contamination: Any
    fit: Any
    _fingerprint: Any

    #: Offsets, behind the state of parameters and network; empty after `fit`.
    _offset: dict[str, float]

    @property
    def offset_(self) -> float:
        """The log density below which a row is an outlier, in nats.

        The share ``contamination`` of the fitted rows, each left out of its own density, lies
        below. Found when it is first asked for, by scoring the fitted rows.
        """
        check_is_fitted(self, "n_samples_fit_")
        key = self._fingerprint()
        if key not in self._offset:
            share = _AUTO if self.contamination == "auto" else self.contamination
            scores = self._log_density_of_fitted()
            # Nothing is set: scikit-learn wants no new attribute after `predict`.
            self._offset[key] = float(np.percentile(scores, 100 * share))
        return self._offset[key]

    def __dir__(self) -> list[str]:
        """Names without that of the offset: a notebook's page must not score all rows."""
        names = (name for name in object.__dir__(self) if name != "offset_")
        return [name for name in names if hasattr(self, name)]

    @abc.abstractmethod
    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of each row."""

    @abc.abstractmethod
    def _log_density_of_fitted(self) -> np.ndarray:
        """Of each fitted row, left out of its own density."""

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and say which of the rows are outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, for an untrained network.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            -1 for outliers, 1 for inliers.
        """
        labels: np.ndarray = self.fit(X, y).predict(X)
        return labels

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
        return self.score_samples(X) - self.offset_

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
