"""Regression, classification and multilabel: labels and predictions as values with means.

Index legend: n samples; q columns of the values (for classification, one for each of the c
classes); a coordinates of the values.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import helmert
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor

from .._gradients.engine import GradientEngine
from .._gradients.outputs import Outputs
from .._gradients.predictions import expand_to_classes, predict_outputs, predict_probabilities
from .._networks.network import Network
from .._networks.samples import Samples
from .._passes.chunks import Source
from ..exceptions import UnsupportedNetworkError
from ._label_arrays import check_labels, is_numeric, squeeze_column, to_columns


class Target(abc.ABC):
    """Meaning of the labels.

    Values v of shape (n, q) and coordinates z of shape (n, a) satisfy v = centre + z @ basis. The
    gradient of the loss (see `infer_target`) is sum_n J(x_n)^T (z^_n - z~_n) up to a factor, where
    z^ are the coordinates of the predictions, z~ those of the labels, and J is the Jacobian of the
    output that `compared_output` returns.
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
    def _predict(self, engine: GradientEngine, X: Samples) -> np.ndarray:
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

    def predictions(self, source: Source, X: Samples) -> np.ndarray:
        """Return the network's predictions as values of shape (n, q); raise if not finite."""
        values = self._predict(require_network(source), X)
        is_finite = np.isfinite(values).all(axis=1)
        if not is_finite.all():
            # The outputs are finite, but their exponentials overflow.
            raise UnsupportedNetworkError(
                "`estimator` must return outputs with finite exponentials; got infinity, first in"
                f" row {is_finite.argmin()} of X. Check the weights and the scale of X."
            )
        return values

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


def identity(outputs: np.ndarray) -> np.ndarray:
    """Return the outputs themselves."""
    return outputs


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
    link : callable
        Function that returns predictions from outputs, both of shape (n, q).
    """

    mean: np.ndarray
    scale: np.ndarray
    flat: bool
    link: Callable[[np.ndarray], np.ndarray] = identity

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

    def _predict(self, engine: GradientEngine, X: Samples) -> np.ndarray:
        """Return the predictions, of shape (n, q): the link of the outputs."""
        outputs = predict_outputs(engine, X)
        if outputs.shape[1] != len(self.scale):
            raise ValueError(
                f"`y` must have as many columns as the network has outputs, {outputs.shape[1]}; got"
                f" {len(self.scale)}. Pass the labels that the network was trained on."
            )
        return self.link(outputs)

    def compared_output(self, network: Network) -> Any:
        """Return "all", because the loss sums the gradients of all outputs."""
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
class Multilabel(Regression):
    """Target whose labels are several independent labels per sample, each of them 0 or 1.

    The values of predictions are the probabilities of the labels.
    """

    def values(self, y: Any) -> np.ndarray:
        """Return the labels as values of shape (n, q)."""
        values = super().values(y)
        if not is_indicator(values):
            raise ValueError(
                "`y` must contain only 0 and 1, one for each label; got numbers from"
                f" {values.min():.4g} to {values.max():.4g}. Pass the labels that the network was"
                " trained on."
            )
        return values

    def labels(self, values: np.ndarray) -> np.ndarray:
        """Return 1 for each label whose value exceeds 1/2, and otherwise 0."""
        return (values > 0.5).astype(np.int64)

    def score(self, y: Any, values: np.ndarray) -> float:
        """Return the share of the samples for which all labels are right."""
        return float((self.labels(values) == self.values(y)).all(axis=1).mean())

    def agreement(self, y: Any, values: np.ndarray) -> np.ndarray:
        """Return the smallest value, over the labels of a sample, of what each label is."""
        labels = self.values(y)
        # v if the label is 1, and 1 - v if it is 0
        agreement: np.ndarray = (labels * values + (1 - labels) * (1 - values)).min(axis=1)
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
        return np.eye(len(self.classes))[self.encode(y)]

    def label_keys(self, y: Any) -> list[Hashable]:
        """Return the index of each label's class."""
        return list(self._encode(y))

    def _predict(self, engine: GradientEngine, X: Samples) -> np.ndarray:
        """Return the probabilities of the classes, of shape (n, c)."""
        predict = predict_outputs if self.probabilities else predict_probabilities
        return predict(engine, X)

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
        return np.take_along_axis(values, self.encode(y)[:, None], axis=1)[:, 0]

    def encode(self, y: Any) -> np.ndarray:
        """Return the index of each label's class, and raise an error for other labels."""
        codes = self._encode(y)
        if (codes < 0).any():
            raise self._make_error(squeeze_column(check_labels(y))[codes < 0][0])
        return codes

    def _encode(self, y: Any) -> np.ndarray:
        """Return the index of each label's class, and -1 for other labels.

        Names raise an error if the classes are numbers, and numbers if the classes have names.
        """
        labels = squeeze_column(check_labels(y))
        if labels.ndim != 1:
            raise ValueError(
                f"`y` must have one class per sample, among {self._format_classes()}; got shape"
                f" {labels.shape}. Pass a single column, or for several labels per sample a net"
                " with the criterion BCEWithLogitsLoss."
            )
        if is_numeric(labels) != is_numeric(self.classes):
            raise self._make_error(labels[0])
        codes = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        return np.where(self.classes[codes] == labels, codes, -1)

    def _make_error(self, label: Any) -> ValueError:
        return ValueError(
            f"`y` must contain only the classes {self._format_classes()}; got {label}. Number the"
            " classes as in the training of the network."
        )

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


def is_indicator(values: np.ndarray) -> bool:
    """Return whether all values are 0 or 1."""
    return bool(np.isin(values, (0, 1)).all())
