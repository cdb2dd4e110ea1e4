"""Kind of problem that a network was trained for, from its criterion and the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import nn

from .._gradients.criterion import NUMBER_CRITERIA, SCORE_CRITERIA
from .._gradients.engine import GradientEngine
from .._gradients.outputs import looks_like_probabilities
from .._gradients.predictions import predict_outputs
from .._networks.default_network import DefaultNetwork
from .._networks.fitting import CLASS_CRITERIA
from .._networks.network import Network
from .._networks.samples import Samples
from .._networks.samples.labels import make_label_tensor
from .._passes.chunks import Source
from ..exceptions import warn
from ._label_arrays import check_labels, is_classification, squeeze_column, to_columns
from ._targets import Classification, Multilabel, Regression, Target, identity, is_indicator

# Number of samples whose outputs decide whether a network returns probabilities.
_INSPECTED_SAMPLES = 8


def infer_target(source: Source, X: Samples, y: Any) -> Target:
    """Return the meaning of the labels y for the network of a source, or for features.

    | criterion | labels | predictions |
    | --- | --- | --- |
    | cross-entropy, or any of a classifier | classes | softmax of the outputs |
    | binary cross-entropy (`Network.has_independent_labels`) | 0 and 1 | sigmoid of the outputs |
    | Poisson, Kullback-Leibler | numbers | exponential of the outputs |
    | others | numbers | outputs |

    A module has no criterion. Its labels are classes if it has several outputs and the labels are
    whole numbers; other labels are numbers. A warning is issued if the outputs of a network without
    a known criterion may be logits of labels of 0 and 1.

    Features have no network. Their labels are classes if they are names or whole numbers with one
    axis, several labels per sample if they are columns of 0 and 1, and otherwise numbers.
    """
    labels = check_labels(y)
    if not isinstance(source, GradientEngine):
        return _infer_from_labels(labels)
    network = source.network
    if not takes_names(network.module):
        make_label_tensor(labels)
    outputs = predict_outputs(source, X.select(list(range(min(len(X), _INSPECTED_SAMPLES)))))
    count = outputs.shape[1]
    if network.has_independent_labels:
        return _make_independent(network, labels, count)
    if network.classifier or isinstance(network.criterion, CLASS_CRITERIA):
        return _make_classification(np.arange(max(count, 2)), labels)
    if network.criterion is None and count > 1 and is_classification(squeeze_column(labels)):
        return _infer_classes(network.module, labels, outputs)
    if isinstance(network.criterion, SCORE_CRITERIA):
        raise ValueError(
            "`estimator` must be a network whose outputs are labels or their probabilities; got a"
            f" net with the criterion {type(network.criterion).__name__}, whose outputs are scores."
            " Pass a module that returns predictions in the unit of the labels."
        )
    link = _choose_link(network.criterion)
    if link is identity and not isinstance(network.criterion, NUMBER_CRITERIA):
        _warn_if_logits(network.module, labels, outputs)
    return _make_regression(labels, link)


def _infer_from_labels(labels: np.ndarray) -> Target:
    """Return the target of features, for which only the labels are known."""
    if labels.ndim == 1 and is_classification(labels):
        return _make_classification(np.unique(labels), labels)
    is_multilabel = is_indicator(to_columns(labels)) and labels.shape[1:] > (1,)
    return _make_regression(labels, kind=Multilabel if is_multilabel else Regression)


def takes_names(network: Any) -> bool:
    """Return whether labels can be names of classes: for "features" and the default network.

    The outputs of the default network are in the sorted order of the names. The order of another
    network's outputs is known for numbers only.
    """
    return isinstance(network, str | DefaultNetwork)


def _make_independent(network: Network, labels: np.ndarray, count: int) -> Target:
    """Return the target of a network whose outputs are probabilities of independent labels."""
    columns = to_columns(labels)
    # One output is a probability of the second of two classes.
    if count == 1 and (network.classifier or is_indicator(columns)):
        return _make_classification(np.arange(2), labels)
    if columns.min() < 0 or columns.max() > 1:
        raise ValueError(
            "`y` must contain 0 and 1, or probabilities between them, because the criterion is"
            f" {type(network.criterion).__name__}; got numbers from {columns.min():.4g} to"
            f" {columns.max():.4g}. Pass one column per label, as in the training of the network."
        )
    return _make_regression(labels, expit, Multilabel if is_indicator(columns) else Regression)


def _infer_classes(module: nn.Module, labels: np.ndarray, outputs: np.ndarray) -> Classification:
    """Return the classes of a module, which has no criterion, from some of its outputs."""
    seen, count = np.unique(labels), outputs.shape[1]
    # The classes of the default network are sorted, and all others are numbers of outputs.
    is_sorted = isinstance(module, DefaultNetwork) and len(seen) == count
    probabilities = looks_like_probabilities(torch.as_tensor(outputs))
    return _make_classification(seen if is_sorted else np.arange(count), labels, probabilities)


def _warn_if_logits(module: nn.Module, labels: np.ndarray, outputs: np.ndarray) -> None:
    """Warn if the labels are 0 and 1, and some outputs cannot be their probabilities."""
    are_indicators = set(np.unique(labels)) == {0, 1} and not isinstance(module, DefaultNetwork)
    if are_indicators and (outputs.min() < 0 or outputs.max() > 1):
        warn(
            "`y` contains only 0 and 1, and the outputs of the network are treated as predictions"
            " of these numbers, but leave the range from 0 to 1. If they are logits, the results"
            " are wrong: pass a skorch net whose criterion is BCEWithLogitsLoss or a subclass of"
            " it.",
            UserWarning,
        )


def _choose_link(criterion: nn.Module | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that turns outputs into predictions in the unit of the labels."""
    takes_logarithm = (isinstance(criterion, nn.PoissonNLLLoss) and criterion.log_input) or (
        isinstance(criterion, nn.KLDivLoss) and not criterion.log_target
    )
    return np.exp if takes_logarithm else identity


def _make_regression(
    labels: np.ndarray,
    link: Callable[[np.ndarray], np.ndarray] = identity,
    kind: type[Regression] = Regression,
) -> Regression:
    numbers = to_columns(labels)
    scale = numbers.std(axis=0)
    return kind(numbers.mean(axis=0), np.where(scale > 0, scale, 1.0), labels.ndim == 1, link)


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
