"""Regression and classification: labels and predictions as values that can be averaged.

Index legend: n samples; q columns of labels (one for each of c classes); a coordinates in which
the loss sees them.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import helmert
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import type_of_target
from torch import Tensor

from . import _predictions
from ._gradients import GradientEngine
from ._inputs import part
from ._network import Network
from ._outputs import Outputs
from ._passes import Source


class Task(abc.ABC):
    """What labels mean.

    ``basis`` (a, q) and ``centre`` say how values are written as centre + coordinates @ basis: the
    gradient of the loss (squares, or cross-entropy) is the sum over samples of the differences of
    predictions and labels in these coordinates, times the Jacobian of `compared`.
    """

    @property
    @abc.abstractmethod
    def basis(self) -> np.ndarray:
        """Of shape (a, q)."""

    @property
    @abc.abstractmethod
    def centre(self) -> float:
        """What values are where all coordinates are 0."""

    @abc.abstractmethod
    def values(self, y: Any) -> np.ndarray:
        """Labels as values of shape (n, q)."""

    @abc.abstractmethod
    def predictions(self, source: Source, X: Any) -> np.ndarray:
        """The network's own, of shape (n, q)."""

    @abc.abstractmethod
    def compared(self, network: Network) -> Any:
        """The output whose gradients the loss sums, as `Outputs` takes it."""

    @abc.abstractmethod
    def labels(self, values: np.ndarray) -> np.ndarray:
        """Values (n, q) in the form that labels have."""

    @abc.abstractmethod
    def score(self, y: Any, values: np.ndarray) -> float:
        """How good values (n, q) are as predictions of the labels."""

    @abc.abstractmethod
    def agreement(self, y: Any, values: np.ndarray) -> np.ndarray:
        """How far labels and values (n, q) agree, of shape (n,): 1 where they are equal."""

    def coordinates(self, values: np.ndarray) -> np.ndarray:
        """(n, q) -> (n, a)."""
        found: np.ndarray = (values - self.centre) @ self.basis.T
        return found

    def from_coordinates(self, coordinates: np.ndarray) -> np.ndarray:
        """(n, a) -> (n, q)."""
        found: np.ndarray = self.centre + coordinates @ self.basis
        return found


@dataclass(frozen=True)
class Regression(Task):
    """Labels are numbers.

    Attributes
    ----------
    scale : ndarray of shape (q,)
        Standard deviation of the labels; 1 where they are constant.
    flat : bool
        Whether labels have one axis.
    """

    scale: np.ndarray
    flat: bool

    @property
    def centre(self) -> float:
        """Values are their own coordinates."""
        return 0.0

    @property
    def basis(self) -> np.ndarray:
        """Values are their own coordinates."""
        return np.eye(len(self.scale))

    def values(self, y: Any) -> np.ndarray:
        """Labels as values of shape (n, q)."""
        found = _numbers(y)
        if found.shape[1] != len(self.scale):
            raise ValueError(
                f"y has {found.shape[1]} columns; allowed are {len(self.scale)}, as in fit."
            )
        return found

    def predictions(self, source: Source, X: Any) -> np.ndarray:
        """The outputs."""
        found = _predictions.values(network_of(source), X)
        if found.shape[1] != len(self.scale):
            raise ValueError(
                f"y has {len(self.scale)} columns and estimator {found.shape[1]} outputs; allowed"
                " are as many columns as outputs: hand over the labels that it was trained on."
            )
        return found

    def compared(self, network: Network) -> Any:
        """All outputs."""
        return "all"

    def labels(self, values: np.ndarray) -> np.ndarray:
        """Values, with one axis where labels had."""
        return values[:, 0] if self.flat else values

    def score(self, y: Any, values: np.ndarray) -> float:
        """R^2."""
        return float(r2_score(self.values(y), values))

    def agreement(self, y: Any, values: np.ndarray) -> np.ndarray:
        """1 / (1 + r^2), r the residual in standard deviations of the labels."""
        residuals = (self.values(y) - values) / self.scale
        found: np.ndarray = 1 / (1 + np.square(residuals).mean(axis=1))
        return found


@dataclass(frozen=True)
class Classification(Task):
    """Labels are classes, their values one-hot; predictions are probabilities.

    Attributes
    ----------
    classes : ndarray of shape (c,)
        The classes, in the order of the network's outputs.
    """

    classes: np.ndarray

    @property
    def centre(self) -> float:
        """Values sum to 1."""
        return 1 / len(self.classes)

    @property
    def basis(self) -> np.ndarray:
        """Of what sums to 0, for a softmax is blind to what all logits share."""
        found: np.ndarray = helmert(len(self.classes))
        return found

    def values(self, y: Any) -> np.ndarray:
        """One-hot, of shape (n, c)."""
        return np.eye(len(self.classes))[self._codes(y)]

    def predictions(self, source: Source, X: Any) -> np.ndarray:
        """Probabilities of the classes."""
        return _predictions.probabilities(network_of(source), X)

    def compared(self, network: Network) -> Any:
        """The logits, without what they share."""
        return Contrasts(Outputs("all", network), self.basis)

    def labels(self, values: np.ndarray) -> np.ndarray:
        """The class of the largest value."""
        return self.classes[values.argmax(axis=1)]

    def score(self, y: Any, values: np.ndarray) -> float:
        """Accuracy."""
        return float(accuracy_score(self._codes(y), values.argmax(axis=1)))

    def agreement(self, y: Any, values: np.ndarray) -> np.ndarray:
        """The value of the label's class."""
        return np.take_along_axis(values, self._codes(y)[:, None], axis=1)[:, 0]

    def _codes(self, y: Any) -> np.ndarray:
        labels = _array(y)
        codes = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        unknown = self.classes[codes] != labels
        if labels.ndim != 1 or unknown.any():
            came = f"shape {labels.shape}" if labels.ndim != 1 else f"{labels[unknown][0]}"
            raise ValueError(
                f"y has {came}; allowed are one class per sample, of"
                f" {', '.join(map(str, self.classes))}: number the classes as in the network's"
                " training."
            )
        return codes


@dataclass(frozen=True)
class Contrasts:
    """An output to be compared: logits of the classes in coordinates of what sums to 0."""

    outputs: Outputs
    basis: np.ndarray

    def __call__(self, raw: Any) -> Tensor:
        logits = _predictions.by_class(self.outputs.logits(raw))
        return logits @ torch.as_tensor(self.basis).mT.to(logits)


def network_of(source: Source) -> GradientEngine:
    """What predicts."""
    if not isinstance(source, GradientEngine):
        raise ValueError(
            "estimator is 'features', rows that predict nothing; allowed where predictions are"
            " looked at are networks: hand over the one that the features come from."
        )
    return source


def task_of(source: Source, X: Any, y: Any) -> Task:
    """What labels mean to a network, of rows or of features."""
    labels = _array(y)
    discrete = labels.ndim == 1 and type_of_target(labels) in ("binary", "multiclass")
    if not isinstance(source, GradientEngine):
        return _classification(np.unique(labels), labels) if discrete else _regression(labels)
    count = _predictions.values(source, part(X, [0])).shape[1]
    if source.network.classifier:
        return _classification(np.arange(max(count, 2)), labels)
    if discrete and source.network.criterion is None and count > 1:
        # The embedded network was trained on classes of any name, sorted.
        named = len(np.unique(labels)) == count
        return _classification(np.unique(labels) if named else np.arange(count), labels)
    return _regression(labels)


def _regression(labels: np.ndarray) -> Regression:
    scale = _numbers(labels).std(axis=0)
    return Regression(np.where(scale > 0, scale, 1.0), labels.ndim == 1)


def _classification(classes: np.ndarray, labels: np.ndarray) -> Classification:
    seen = np.unique(labels)
    if len(seen) < 2:
        raise ValueError(
            f"y has one class, {seen[0]}; allowed are two or more: nothing can be told from"
            " labels that are all the same."
        )
    return Classification(classes)


def _array(y: Any) -> np.ndarray:
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("y contains NaN or infinity; all labels must be finite: drop such rows.")
    return labels


def _numbers(y: Any) -> np.ndarray:
    """(n, q), float64."""
    labels = _array(y)
    if labels.dtype.kind not in "fiub" or labels.ndim not in (1, 2):
        raise ValueError(
            f"Unknown label type: y has dtype {labels.dtype} and {labels.ndim} axes; allowed are"
            " numbers, one row per sample."
        )
    return labels.astype(np.float64).reshape(len(labels), -1)
