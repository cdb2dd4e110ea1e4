"""Regression and classification: labels and predictions as values that can be averaged.

Index legend: n samples; q columns of the values (for classification, one for each of the c
classes); a coordinates of the values.
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
from sklearn.utils.multiclass import type_of_target
from torch import Tensor, nn

from .._gradients.engine import GradientEngine
from .._gradients.outputs import Outputs, looks_like_probabilities
from .._gradients.predictions import expand_to_classes, predict_outputs, predict_probabilities
from .._networks.default_network import DefaultNetwork
from .._networks.network import Network
from .._networks.samples import Samples
from .._passes.chunks import Source

#: Criteria whose labels can be classes; without a criterion, labels can be classes, too.
_CLASS_CRITERIA = (nn.CrossEntropyLoss, nn.NLLLoss, type(None))

# Number of samples whose outputs decide whether a network returns probabilities.
_INSPECTED_SAMPLES = 8


class Target(abc.ABC):
    """Meaning of the labels.

    Values v of shape (n, q) and coordinates z of shape (n, a) satisfy v = centre + z @ basis. The
    gradient of the loss (squared error or cross-entropy) is sum_n J(x_n)^T (z^_n - z~_n) up to a
    factor, where z^ are the coordinates of the predictions, z~ those of the labels, and J is the
    Jacobian of the output that `compared_output` returns.
    """

    @property
    @abc.abstractmethod
    def basis(self) -> np.ndarray:
        """Orthonormal rows, of shape (a, q)."""

    @property
    @abc.abstractmethod
    def centre(self) -> Any:
        """Value at which all coordinates are 0: a number, or an array of shape (q,)."""

    @abc.abstractmethod
    def values(self, y: Any) -> np.ndarray:
        """Return the labels as values of shape (n, q)."""

    @abc.abstractmethod
    def label_keys(self, y: Any) -> list[Hashable]:
        """Return one key per label; equal labels have equal keys."""

    @abc.abstractmethod
    def predictions(self, source: Source, X: Samples) -> np.ndarray:
        """Return the network's predictions as values of shape (n, q)."""

    @abc.abstractmethod
    def compared_output(self, network: Network) -> Any:
        """Return the ``output`` (see `Outputs`) whose gradients the loss sums."""

    @abc.abstractmethod
    def labels(self, values: np.ndarray) -> np.ndarray:
        """Return values of shape (n, q) in the form that labels have."""

    @abc.abstractmethod
    def score(self, y: Any, values: np.ndarray) -> float:
        """Return the score of values of shape (n, q) as predictions of the labels."""

    @abc.abstractmethod
    def agreement(self, y: Any, values: np.ndarray) -> np.ndarray:
        """Return how well values of shape (n, q) agree with the labels, of shape (n,).

        The agreement is 1 if they are equal.
        """

    def coordinates(self, values: np.ndarray) -> np.ndarray:
        """Return the coordinates, of shape (n, a), of values of shape (n, q)."""
        # z = (v - centre) @ basis^T, the inverse of v = centre + z @ basis
        coordinates: np.ndarray = (values - self.centre) @ self.basis.T
        return coordinates

    def from_coordinates(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the values, of shape (n, q), with coordinates of shape (n, a)."""
        # v = centre + z @ basis
        values: np.ndarray = self.centre + coordinates @ self.basis
        return values


@dataclass(frozen=True)
class Regression(Target):
    """Target whose labels are numbers, one or several per sample.

    Attributes
    ----------
    mean : ndarray of shape (q,)
        Mean of the fitted labels.
    scale : ndarray of shape (q,)
        Standard deviation of the fitted labels; 1 for a constant column.
    flat : bool
        Whether the labels have a single axis.
    """

    mean: np.ndarray
    scale: np.ndarray
    flat: bool

    @property
    def centre(self) -> np.ndarray:
        """Mean of the labels.

        Sums of centred labels stay accurate if the mean is large.
        """
        return self.mean

    @property
    def basis(self) -> np.ndarray:
        """Identity: coordinates are centred values."""
        return np.eye(len(self.scale))

    def values(self, y: Any) -> np.ndarray:
        """Return the labels as values of shape (n, q)."""
        values = to_columns(y)
        if values.shape[1] != len(self.scale):
            raise ValueError(
                f"`y` must have as many columns as in fit, {len(self.scale)}; got"
                f" {values.shape[1]}. Pass labels of that shape, or call fit again."
            )
        return values

    def label_keys(self, y: Any) -> list[Hashable]:
        """Return the numbers of each label as a tuple."""
        return list(map(tuple, self.values(y)))

    def predictions(self, source: Source, X: Samples) -> np.ndarray:
        """Return the outputs of the network, of shape (n, q)."""
        outputs = predict_outputs(require_network(source), X)
        if outputs.shape[1] != len(self.scale):
            raise ValueError(
                f"`y` must have as many columns as the network has outputs, {outputs.shape[1]}; got"
                f" {len(self.scale)}. Pass the labels that the network was trained on."
            )
        return outputs

    def compared_output(self, network: Network) -> Any:
        """Return "all", because the squared error sums the gradients of all outputs."""
        return "all"

    def labels(self, values: np.ndarray) -> np.ndarray:
        """Return the values, without the second axis if the labels have none."""
        return values[:, 0] if self.flat else values

    def score(self, y: Any, values: np.ndarray) -> float:
        """Return R^2."""
        return float(r2_score(self.values(y), values))

    def agreement(self, y: Any, values: np.ndarray) -> np.ndarray:
        """Return 1 / (1 + r^2), where r is the residual in standard deviations of the labels.

        For several columns, r^2 is the mean over them.
        """
        residuals = (self.values(y) - values) / self.scale
        agreement: np.ndarray = 1 / (1 + np.square(residuals).mean(axis=1))
        return agreement


@dataclass(frozen=True)
class Classification(Target):
    """Target whose labels are classes.

    The values of labels are one-hot, and the values of predictions are probabilities.

    Attributes
    ----------
    classes : ndarray of shape (c,)
        The classes, in the order of the network's outputs.
    probabilities : bool
        Whether the outputs are probabilities that no criterion turns into logarithms.
    """

    classes: np.ndarray
    probabilities: bool = False

    @property
    def centre(self) -> float:
        """Value 1 / c of each class, because values sum to 1."""
        return 1 / len(self.classes)

    @property
    def basis(self) -> np.ndarray:
        """Helmert basis of vectors that sum to 0, of shape (c - 1, c).

        A softmax does not change if all logits grow by the same number.
        """
        basis: np.ndarray = helmert(len(self.classes))
        return basis

    def values(self, y: Any) -> np.ndarray:
        """Return the one-hot labels, of shape (n, c)."""
        return np.eye(len(self.classes))[self._encode_known(y)]

    def label_keys(self, y: Any) -> list[Hashable]:
        """Return the index of each label's class."""
        return list(self._encode(y))

    def predictions(self, source: Source, X: Samples) -> np.ndarray:
        """Return the probabilities of the classes, of shape (n, c)."""
        predict = predict_outputs if self.probabilities else predict_probabilities
        return predict(require_network(source), X)

    def compared_output(self, network: Network) -> Any:
        """Return the coordinates of the logits, whose gradients the cross-entropy sums."""
        return CenteredLogits(Outputs("all", network), self.basis, self.probabilities)

    def labels(self, values: np.ndarray) -> np.ndarray:
        """Return the class with the largest value."""
        return self.classes[values.argmax(axis=1)]

    def score(self, y: Any, values: np.ndarray) -> float:
        """Return the accuracy; labels of an unknown class count as errors."""
        return float(accuracy_score(self._encode(y), values.argmax(axis=1)))

    def agreement(self, y: Any, values: np.ndarray) -> np.ndarray:
        """Return the value of each label's class."""
        return np.take_along_axis(values, self._encode_known(y)[:, None], axis=1)[:, 0]

    def _encode_known(self, y: Any) -> np.ndarray:
        """Return the index of each label's class, and raise an error for other labels."""
        codes = self._encode(y)
        if (codes < 0).any():
            unknown = squeeze_column(check_labels(y))[codes < 0][0]
            raise ValueError(
                f"`y` must contain only the classes {self._format_classes()}; got {unknown}. Number"
                " the classes as in the training of the network."
            )
        return codes

    def _encode(self, y: Any) -> np.ndarray:
        """Return the index of each label's class, and -1 for other labels."""
        labels = squeeze_column(check_labels(y))
        if labels.ndim != 1:
            raise ValueError(
                f"`y` must have one class per sample, among {self._format_classes()}; got shape"
                f" {labels.shape}. Pass a single column."
            )
        codes = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        return np.where(self.classes[codes] == labels, codes, -1)

    def _format_classes(self) -> str:
        return ", ".join(map(str, self.classes))


@dataclass(frozen=True)
class CenteredLogits:
    """Output of a network that consists of the coordinates of its logits.

    Attributes
    ----------
    outputs : Outputs
        Selection of all outputs.
    basis : ndarray of shape (a, c)
        Basis of the coordinates.
    probabilities : bool
        Whether the outputs are probabilities, whose logarithms are the logits.
    """

    outputs: Outputs
    basis: np.ndarray
    probabilities: bool

    def __call__(self, raw: Any) -> Tensor:
        logits = expand_to_classes(self.outputs.logits(raw))
        if self.probabilities:
            # The logarithm of a probability that underflows to 0 has no finite gradient.
            logits = logits.clamp_min(torch.finfo(logits.dtype).tiny).log()
        # z = logits @ basis^T; the rows of the basis sum to 0, so no centre is subtracted.
        return logits @ torch.as_tensor(self.basis).mT.to(logits)


def require_network(source: Source) -> GradientEngine:
    """Return the engine of the network, or raise an error if there is none."""
    if not isinstance(source, GradientEngine):
        raise ValueError(
            "`estimator` must be a network, because predictions are needed; got 'features'. Pass"
            " the network that the features were computed from."
        )
    return source


def infer_target(source: Source, X: Samples, y: Any) -> Target:
    """Return whether the labels of a network, or of features, are classes or numbers."""
    labels = check_labels(y)
    if not isinstance(source, GradientEngine):
        discrete = labels.ndim == 1 and is_classification(labels)
        return (
            _make_classification(np.unique(labels), labels)
            if discrete
            else _make_regression(labels)
        )
    first = X.select(list(range(min(len(X), _INSPECTED_SAMPLES))))
    outputs, network = predict_outputs(source, first), source.network
    count = outputs.shape[1]
    if network.classifier:
        return _make_classification(np.arange(max(count, 2)), labels)
    if (
        count > 1
        and is_classification(squeeze_column(labels))
        and isinstance(network.criterion, _CLASS_CRITERIA)
    ):
        has_no_criterion = network.criterion is None
        probabilities = has_no_criterion and looks_like_probabilities(torch.as_tensor(outputs))
        classes = _infer_classes(network.module, labels, count)
        return _make_classification(classes, labels, probabilities)
    return _make_regression(labels)


def _infer_classes(module: nn.Module, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the classes in the order of the outputs.

    The classes of the default network, and classes with names, are sorted; others are numbered.
    """
    seen = np.unique(labels)
    is_sorted = isinstance(module, DefaultNetwork) or labels.dtype.kind not in "fiub"
    return seen if is_sorted and len(seen) == count else np.arange(count)


def _make_regression(labels: np.ndarray) -> Regression:
    numbers = to_columns(labels)
    scale = numbers.std(axis=0)
    return Regression(numbers.mean(axis=0), np.where(scale > 0, scale, 1.0), labels.ndim == 1)


def _make_classification(
    classes: np.ndarray, labels: np.ndarray, probabilities: bool = False
) -> Classification:
    seen = np.unique(labels)
    if len(seen) < 2:
        raise ValueError(
            f"`y` must contain at least two classes; got one class, {seen[0]}. Pass labels of"
            " several classes."
        )
    return Classification(classes, probabilities)


def check_labels(y: Any) -> np.ndarray:
    """Return the labels as an array, and raise an error if they are missing or not finite."""
    if y is None:
        raise ValueError("`y` must be the labels of X; got None. Pass one label per sample.")
    if isinstance(y, Tensor):
        # NumPy has no bfloat16.
        y = (y.float() if y.is_floating_point() and y.dtype != torch.float64 else y).cpu().detach()
    labels = np.asarray(y)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("`y` must be finite; got NaN or infinity. Remove these samples.")
    return labels


def squeeze_column(labels: np.ndarray) -> np.ndarray:
    """Return labels of shape (n, 1) as shape (n,), and other labels unchanged."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def to_columns(y: Any) -> np.ndarray:
    """Return numeric labels as an array of shape (n, q), float64."""
    labels = check_labels(y)
    if labels.dtype.kind not in "fiub" or labels.ndim not in (1, 2):
        raise ValueError(
            "Unknown label type: `y` must be numbers with 1 or 2 axes; got dtype"
            f" {labels.dtype} with {labels.ndim} axes. Pass one row of numbers per sample."
        )
    return labels.astype(np.float64).reshape(len(labels), -1)


def is_classification(labels: np.ndarray) -> bool:
    """Return whether labels are names or whole numbers."""
    return type_of_target(labels) in ("binary", "multiclass")
