"""Samples with the largest influence on each sample, computed by `TrainingInfluence`.

Index legend: n samples; k samples in a list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..._networks.network import FEATURES
from ...attribution.influence import TrainingInfluence
from ...labels._targets import Classification, Multilabel, Target

# Largest number of combinations of samples and outputs for which the curvature is exact.
_EXACT_COMBINATIONS = 2_000

# Number of combinations of landmarks and outputs otherwise, and smallest number of landmarks.
_LANDMARK_COMBINATIONS, _FEWEST_LANDMARKS = 576, 16

# Largest number of products between combinations of samples and of landmarks: minutes of one thread
# for a convolutional network.
_MOST_PRODUCTS = 3 * 10**7

# Errors if the loss of single samples or its curvature cannot be computed. Labels and settings have
# been checked by other estimators. The last two are raised by criteria that are not called as in
# training, such as those of a net with a `get_loss` of its own.
_ERRORS = (ValueError, MemoryError, TypeError, RuntimeError)


@dataclass(frozen=True)
class Influence:
    """Most helpful and most harmful samples of n samples.

    Attributes
    ----------
    note : str
        Meaning of the influence and its computation, or the reason why there is none.
    lists : dict of str to tuple of two ndarrays of shape (n, k)
        Positions of the samples and their influence, by the heading of the list.
    """

    note: str
    lists: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def compute_influence(
    network: Any,
    X: Any,
    y: Any,
    target: Target,
    is_order_known: bool,
    n_samples: int,
    settings: dict[str, Any],
) -> Influence:
    """Return the samples with the largest influence on each sample, without the sample itself.

    Parameters
    ----------
    network : object
        The trained network, or "features".
    X, y : object
        All samples and their labels.
    target : Target
        Meaning of the labels.
    is_order_known : bool
        Whether it is known which output of the network belongs to which label.
    n_samples : int
        The number k.
    settings : dict
        Settings of the estimators; those of similarities are ignored.
    """
    if isinstance(network, str) and network == FEATURES:
        return _refuse("features have no loss.")
    if not is_order_known:
        return _refuse("the order of the names of classes in the network is unknown.")
    count, outputs = len(target.label_keys(y)), len(target.basis)
    landmarks = _choose_landmarks(count, outputs)
    if landmarks == 0:
        return _refuse(f"{count:,} samples with {outputs:,} outputs are too many.")
    names = set(TrainingInfluence().get_params()) & set(settings)
    own = {name: settings[name] for name in names} | {"n_components": landmarks}
    # A loss has a zero gradient at the network's own prediction of a number.
    has_margin = isinstance(target, Classification | Multilabel)
    try:
        estimator = TrainingInfluence(network, **own).fit(X, y)
        top = estimator.top(X, n_samples + 1, None if has_margin else y)
    except _ERRORS as error:
        return _refuse(str(error))
    measure = "margin of the predicted label" if has_margin else "loss of this sample"
    raises, lowers = ("raise", "lower") if has_margin else ("lower", "raise")
    return Influence(
        f"The influence is the change of the {measure} by the listed sample, positive if the sample"
        f" helps{', in nats' if has_margin else ''}. It is computed as if the network had been"
        f" trained on the samples of this page, {_describe_curvature(landmarks)}."
        " Select a sample to go to it.",
        {
            f"Most helpful samples: they {raises} the {measure}": _leave_itself_out(
                top.helpful, top.helpful_influence
            ),
            f"Most harmful samples: they {lowers} the {measure}": _leave_itself_out(
                top.harmful, top.harmful_influence
            ),
        },
    )


def _refuse(reason: str) -> Influence:
    return Influence(f"The influence of other samples is not shown: {reason}")


def _describe_curvature(landmarks: int | None) -> str:
    if landmarks is None:
        return "exactly to first order"
    return f"approximately, with {landmarks} landmarks among them"


def _choose_landmarks(count: int, outputs: int) -> int | None:
    """Return the number of landmarks among n samples; None for all, and 0 if none can be chosen."""
    if count * outputs <= _EXACT_COMBINATIONS:
        return None
    wanted = max(_LANDMARK_COMBINATIONS // outputs, _FEWEST_LANDMARKS)
    landmarks = min(count, wanted, _MOST_PRODUCTS // (count * outputs**2))
    return landmarks if landmarks >= _FEWEST_LANDMARKS else 0


def _leave_itself_out(indices: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of k samples from those of k + 1, without the sample whose list it is."""
    is_itself = indices == np.arange(len(indices))[:, None]
    # A stable sort moves the sample itself to the end.
    order = np.argsort(is_itself, axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(values, order, axis=1)
