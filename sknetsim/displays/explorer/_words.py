"""What is said of samples in words: their labels, and what the network predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..._networks.network import FEATURES
from ...labels._targets import Classification
from ...labels._validation import check_labels, squeeze_column
from ...labels.denoising import LabelDenoiser
from .._rendering import format_value


class Words(NamedTuple):
    """Of n samples.

    Parameters
    ----------
    spoken : dict of str to list of str
        "label" and "prediction", where there are any.
    contradicted : ndarray of shape (n,), bool
        Where the network predicts another class than the label. Numbers that are predicted are
        never quite the labels: nothing is said of them.
    """

    spoken: dict[str, list[str]]
    contradicted: np.ndarray


def describe_with_words(
    denoiser: LabelDenoiser | None, y: Any, predictions: Any, count: int
) -> Words:
    """By a denoiser that was fitted on the labels, where there are any."""
    given = {"prediction": predictions} if denoiser is None else {"label": y}
    spoken = {name: _words(values) for name, values in given.items() if values is not None}
    nothing = np.zeros(count, dtype=bool)
    if denoiser is None:
        return Words(spoken, nothing)
    task = denoiser._task
    if predictions is not None:
        spoken["prediction"] = _words(predictions)
        differs = np.array(spoken["label"]) != np.array(spoken["prediction"])
        return Words(spoken, differs if isinstance(task, Classification) else nothing)
    if denoiser.estimator_ == FEATURES:
        return Words(spoken, nothing)
    values = denoiser._predictions(None)
    if not isinstance(task, Classification):
        spoken["prediction"] = _words(task.labels(values))
        return Words(spoken, nothing)
    labels, predicted = task.values(y).argmax(axis=1), values.argmax(axis=1)
    names = dict(enumerate(_words(task.classes)))
    names |= dict(zip(labels.tolist(), spoken["label"], strict=True))
    spoken["prediction"] = [names[code] for code in predicted.tolist()]
    return Words(spoken, labels != predicted)


def _words(values: Any) -> list[str]:
    """Of several columns, one after the other."""
    found = squeeze_column(check_labels(values))
    if found.ndim == 1:
        return [format_value(value) for value in found]
    return [", ".join(map(format_value, row)) for row in found]
