"""Labels and predictions of the samples as texts.

Index legend: n samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..._networks.network import FEATURES
from ...labels._label_arrays import check_labels, is_numeric, squeeze_column
from ...labels._targets import Classification, Multilabel
from ...labels.denoising import LabelDenoiser
from .._appearance.formatting import format_label


class Texts(NamedTuple):
    """Labels and predictions of n samples as texts.

    Parameters
    ----------
    columns : dict of str to list of str
        "label" if there are labels, and "prediction" if there are predictions.
    mismatches : ndarray of shape (n,), bool
        Whether the predicted class, or one of several predicted labels, differs from the label. It
        is False for regression, whose predictions never equal the labels exactly.
    """

    columns: dict[str, list[str]]
    mismatches: np.ndarray


def format_texts(denoiser: LabelDenoiser | None, y: Any, predictions: Any, count: int) -> Texts:
    """Return labels and predictions as texts.

    Parameters
    ----------
    denoiser : LabelDenoiser or None
        Denoiser fitted on the labels, or on numbers in place of names; None if there are no labels.
    y : array-like of shape (n,) or None
        The labels.
    predictions : array-like of shape (n,) or None
        Predictions to show. None: those of the denoiser's network, unless the labels are names that
        the denoiser was not fitted on, because their order in the network is unknown.
    count : int
        The number n of samples.

    Returns
    -------
    texts : Texts
        The texts, and the mismatches between them.
    """
    no_mismatches = np.zeros(count, dtype=bool)
    given = {"prediction": predictions} if denoiser is None else {"label": y}
    columns = {name: _format_values(values) for name, values in given.items() if values is not None}
    if denoiser is None:
        return Texts(columns, no_mismatches)
    target = denoiser._target
    if predictions is not None:
        columns["prediction"] = _format_values(predictions)
        mismatches = np.array(columns["label"]) != np.array(columns["prediction"])
        discrete = isinstance(target, Classification | Multilabel)
        return Texts(columns, mismatches if discrete else no_mismatches)
    if denoiser.estimator_ == FEATURES:
        # Features have no network, and so no predictions.
        return Texts(columns, no_mismatches)
    values = denoiser._label_weights.predictions
    if isinstance(target, Classification):
        return _format_classes(target, y, values, columns)
    predicted = target.labels(values)
    if not isinstance(target, Multilabel):
        columns["prediction"] = _format_values(predicted)
        return Texts(columns, no_mismatches)
    columns["prediction"] = _format_values(predicted.astype(check_labels(y).dtype))
    return Texts(columns, (predicted != target.values(y)).any(axis=1))


def _format_classes(
    target: Classification, y: Any, values: np.ndarray, columns: dict[str, list[str]]
) -> Texts:
    """Return the texts of classes, with predictions of shape (n, c)."""
    if not is_numeric(check_labels(y)) and is_numeric(target.classes):
        return Texts(columns, np.zeros(len(values), dtype=bool))
    labels, predicted = target.values(y).argmax(axis=1), values.argmax(axis=1)
    # Predicted classes are spelled like the labels that the user passed.
    names = dict(enumerate(_format_values(target.classes)))
    names |= dict(zip(labels.tolist(), columns["label"], strict=True))
    prediction = [names[code] for code in predicted.tolist()]
    return Texts({**columns, "prediction": prediction}, labels != predicted)


def _format_values(values: Any) -> list[str]:
    """Return one text per sample, with a comma between several columns."""
    return [format_label(value) for value in squeeze_column(check_labels(values))]
