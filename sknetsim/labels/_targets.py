"""Regression and classification: labels and predictions as values that can be averaged.

Index legend: n samples; q columns of labels (one for each of c classes); a coordinates in which
the loss sees them.
"""

from __future__ import annotations

import abc
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import helmert
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor, nn

from .._gradients.engine import GradientEngine
from .._gradients.outputs import Outputs, looks_like_probabilities
from .._gradients.predictions import expand_to_classes, predict_outputs, predict_probabilities
from .._networks.default_network import DefaultNetwork
from .._networks.network import Network
from .._passes.chunks import Source
from ._validation import check_labels, is_classification, squeeze_column, to_columns

#: Criteria whose labels are classes; a network without one may have any.
_OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, type(None))

# Rows whose outputs are looked at.
_FEW = 8


class Target(abc.ABC):
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
    def centre(self) -> Any:
        """What values are where all coordinates are 0: a number, or one for each column."""

    @abc.abstractmethod
    def values(self, y: Any) -> np.ndarray:
        """Labels as values of shape (n, q)."""

    @abc.abstractmethod
    def label_keys(self, y: Any) -> list[Hashable]:
        """What tells n labels apart."""

    @abc.abstractmethod
    def predictions(self, source: Source, X: Any) -> np.ndarray:
        """The network's own, of shape (n, q)."""

    @abc.abstractmethod
    def compared_output(self, network: Network) -> Any:
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
class Regression(Target):
    """Labels are numbers.

    Attributes
    ----------
    mean : ndarray of shape (q,)
        Of the labels.
    scale : ndarray of shape (q,)
        Standard deviation of the labels; 1 where they are constant.
    flat : bool
        Whether labels have one axis.
    """

    mean: np.ndarray
    scale: np.ndarray
    flat: bool

    @property
    def centre(self) -> np.ndarray:
        """The mean: sums of what is left keep all digits."""
        return self.mean

    @property
    def basis(self) -> np.ndarray:
        """Values are their own coordinates, but for the mean."""
        return np.eye(len(self.scale))

    def values(self, y: Any) -> np.ndarray:
        """Labels as values of shape (n, q)."""
        found = to_columns(y)
        if found.shape[1] != len(self.scale):
            raise ValueError(
                f"y has {found.shape[1]} columns; allowed are {len(self.scale)}, as in fit."
            )
        return found

    def label_keys(self, y: Any) -> list[Hashable]:
        """The numbers."""
        return list(map(tuple, self.values(y)))

    def predictions(self, source: Source, X: Any) -> np.ndarray:
        """The outputs."""
        found = predict_outputs(require_network(source), X)
        if found.shape[1] != len(self.scale):
            raise ValueError(
                f"y has {len(self.scale)} columns and estimator {found.shape[1]} outputs; allowed"
                " are as many columns as outputs: hand over the labels that it was trained on."
            )
        return found

    def compared_output(self, network: Network) -> Any:
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
class Classification(Target):
    """Labels are classes, their values one-hot; predictions are probabilities.

    Attributes
    ----------
    classes : ndarray of shape (c,)
        The classes, in the order of the network's outputs.
    probabilities : bool
        Whether the network gives probabilities, without a criterion that takes their logarithm.
    """

    classes: np.ndarray
    probabilities: bool = False

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
        return np.eye(len(self.classes))[self._known_codes(y)]

    def label_keys(self, y: Any) -> list[Hashable]:
        """The numbers of the classes."""
        return list(self._codes(y))

    def predictions(self, source: Source, X: Any) -> np.ndarray:
        """Probabilities of the classes."""
        predict = predict_outputs if self.probabilities else predict_probabilities
        return predict(require_network(source), X)

    def compared_output(self, network: Network) -> Any:
        """The logits, without what they share."""
        return CenteredLogits(Outputs("all", network), self.basis, self.probabilities)

    def labels(self, values: np.ndarray) -> np.ndarray:
        """The class of the largest value."""
        return self.classes[values.argmax(axis=1)]

    def score(self, y: Any, values: np.ndarray) -> float:
        """Accuracy; a class that is unknown is none that could be predicted."""
        return float(accuracy_score(self._codes(y), values.argmax(axis=1)))

    def agreement(self, y: Any, values: np.ndarray) -> np.ndarray:
        """The value of the label's class."""
        return np.take_along_axis(values, self._known_codes(y)[:, None], axis=1)[:, 0]

    def _known_codes(self, y: Any) -> np.ndarray:
        codes = self._codes(y)
        if (codes < 0).any():
            unknown = squeeze_column(check_labels(y))[codes < 0][0]
            raise ValueError(
                f"y has {unknown}; allowed are {self._listed}: number the classes as in the"
                " network's training."
            )
        return codes

    def _codes(self, y: Any) -> np.ndarray:
        """Places of the labels among the classes, -1 for others."""
        labels = squeeze_column(check_labels(y))
        if labels.ndim != 1:
            raise ValueError(
                f"y has shape {labels.shape}; allowed is one class per sample, of {self._listed}:"
                " hand over a single column."
            )
        codes = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        return np.where(self.classes[codes] == labels, codes, -1)

    @property
    def _listed(self) -> str:
        return ", ".join(map(str, self.classes))


@dataclass(frozen=True)
class CenteredLogits:
    """An output to be compared: logits of the classes in coordinates of what sums to 0."""

    outputs: Outputs
    basis: np.ndarray
    probabilities: bool

    def __call__(self, raw: Any) -> Tensor:
        logits = expand_to_classes(self.outputs.logits(raw))
        if self.probabilities:
            logits = logits.clamp_min(torch.finfo(logits.dtype).tiny).log()
        return logits @ torch.as_tensor(self.basis).mT.to(logits)


def require_network(source: Source) -> GradientEngine:
    """What predicts."""
    if not isinstance(source, GradientEngine):
        raise ValueError(
            "estimator is 'features', rows that predict nothing; allowed where predictions are"
            " looked at are networks: hand over the one that the features come from."
        )
    return source


def infer_target(source: Source, X: Any, y: Any) -> Target:
    """What labels mean to a network, of rows or of features."""
    labels = check_labels(y)
    if not isinstance(source, GradientEngine):
        discrete = labels.ndim == 1 and is_classification(labels)
        return _classification(np.unique(labels), labels) if discrete else _regression(labels)
    few = X.select(list(range(min(len(X), _FEW))))
    outputs, network = predict_outputs(source, few), source.network
    count = outputs.shape[1]
    if network.classifier:
        return _classification(np.arange(max(count, 2)), labels)
    if (
        count > 1
        and is_classification(squeeze_column(labels))
        and isinstance(network.criterion, _OF_CLASSES)
    ):
        bare = network.criterion is None
        probabilities = bare and looks_like_probabilities(torch.as_tensor(outputs))
        return _classification(_classes(network.module, labels, count), labels, probabilities)
    return _regression(labels)


def _classes(module: nn.Module, labels: np.ndarray, count: int) -> np.ndarray:
    """In the order of the outputs: numbers, or what is sorted, as the embedded network does."""
    seen = np.unique(labels)
    named = isinstance(module, DefaultNetwork) or labels.dtype.kind not in "fiub"
    return seen if named and len(seen) == count else np.arange(count)


def _regression(labels: np.ndarray) -> Regression:
    numbers = to_columns(labels)
    scale = numbers.std(axis=0)
    return Regression(numbers.mean(axis=0), np.where(scale > 0, scale, 1.0), labels.ndim == 1)


def _classification(
    classes: np.ndarray, labels: np.ndarray, probabilities: bool = False
) -> Classification:
    seen = np.unique(labels)
    if len(seen) < 2:
        raise ValueError(
            f"y has one class, {seen[0]}; allowed are two or more: nothing can be told from"
            " labels that are all the same."
        )
    return Classification(classes, probabilities)
