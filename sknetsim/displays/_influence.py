"""Display of queries and the fitted samples with the largest influence on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..attribution.influence import TrainingInfluence
from ..estimators._base import check_is_fitted
from ..labels._label_arrays import check_labels, is_numeric, squeeze_column
from ._figures import BLUE, VERMILION
from ._queries import QueriesDisplay, check_shape, render_samples


class InfluenceDisplay(QueriesDisplay):
    """Queries and the samples that help or harm them most, as images, texts or rows of a table.

    Each row of images has a query, followed by the most helpful fitted samples and then by the most
    harmful ones. The caption of a fitted sample has its influence and its label. Its frame is blue
    for a positive influence, and vermilion for a negative one. The caption of a query has its label
    and its prediction, in vermilion if they differ. Tables are drawn one below the other, each with
    the query in its first row, with as many columns and lines as those of `NeighborsDisplay`.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, ...)
        Images with values in [0, 1], of shape (height, width) or (height, width, channels) each, or
        rows of a table, of shape (n_columns,) each.
    samples : ndarray of shape (n_queries, n_samples, ...)
        Fitted samples that are shown beside each query, in the same form.
    influence : ndarray of shape (n_queries, n_samples)
        Influence of these samples on their query, positive for helpful ones.
    labels : array-like of shape (n_queries, n_samples, ...), default=None
        Labels of the samples, with a last axis if each has several.
    query_labels : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
        Labels of the queries.
    query_predictions : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
        Predictions of the network for the queries.
    columns : list of str of length n_columns, default=None
        Names of the columns of a table. None: their numbers.

    Attributes
    ----------
    ax_ : ndarray of shape (n_queries, n_samples + 1) of matplotlib Axes
        Axes of each image; for tables, the shape is (n_queries, 1).
    figure_ : matplotlib Figure
        Figure of these axes.

    See Also
    --------
    TrainingInfluence : Estimator that computes the influence.
    NeighborsDisplay : Queries and the samples most similar to them.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import TrainingInfluence
    >>> from sknetsim.displays import InfluenceDisplay
    >>> X = np.random.default_rng(0).normal(size=(40, 2))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> influence = TrainingInfluence(random_state=0).fit(X, y)
    >>> display = InfluenceDisplay.from_estimator(influence, X[:2], n_samples=3)
    >>> display.influence.shape
    (2, 6)
    """

    _names = ("samples", "influence")
    _heading = "influence"

    def __init__(
        self,
        queries: Any,
        samples: Any,
        influence: Any,
        *,
        labels: Any = None,
        query_labels: Any = None,
        query_predictions: Any = None,
        columns: Sequence[str] | None = None,
    ):
        super().__init__(
            queries,
            samples,
            influence,
            labels=labels,
            predictions=None,
            query_labels=query_labels,
            query_predictions=query_predictions,
            columns=columns,
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: TrainingInfluence,
        X: Any,
        y: Any = None,
        *,
        n_samples: int = 4,
        labels: Any = None,
        query_labels: Any = None,
        query_predictions: Any = None,
        image_shape: Sequence[int] | None = None,
        ax: Any = None,
    ) -> InfluenceDisplay:
        """Find the most helpful and the most harmful samples for the queries, and draw them.

        Samples are drawn as they were passed, before the steps of a Pipeline; see
        `NeighborsDisplay.from_estimator`.

        Parameters
        ----------
        estimator : TrainingInfluence
            A fitted estimator.
        X : array-like of shape (n_queries, ...), table, list of texts or images, dict or Dataset
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries at which the margin or the loss is measured, see
            `TrainingInfluence.influence`. None: the predicted labels, so that helpful samples are
            those that led to the prediction; required if labels are numbers.
        n_samples : int, default=4
            Number of helpful and of harmful samples for each query.
        labels : array-like of shape (n_samples_fit,) or (n_samples_fit, n_outputs), default=None
            Labels of the fitted samples that are shown, such as names. None: those passed to `fit`.
        query_labels : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries that are shown. None: ``y``.
        query_predictions : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Predictions that are shown. None: those of the network, unless ``query_labels`` are
            names and the network predicts numbers of classes, whose names are unknown.
        image_shape : tuple of int, default=None
            Shape of a sample as an image, (height, width), (channels, height, width) or (height,
            width, channels). None: its own shape, and samples with one axis are rows of a table.
        ax : matplotlib Axes, default=None
            Axes to replace by a grid. None: a new figure.

        Returns
        -------
        display : InfluenceDisplay
            The display.

        Raises
        ------
        TypeError
            If ``estimator`` is not a TrainingInfluence.
        ValueError
            If there is not one label or prediction per sample, or if ``n_samples`` or
            ``image_shape`` does not fit.
        """
        if not isinstance(estimator, TrainingInfluence):
            raise TypeError(
                "`estimator` must be a fitted TrainingInfluence; got"
                f" {type(estimator).__name__}. Fit TrainingInfluence(network)."
            )
        check_is_fitted(estimator, "damping_")
        shown = squeeze_column(np.asarray(estimator._y if labels is None else labels))
        check_shape("labels", shown, (estimator.n_samples_fit_,))
        top = estimator.top(X, n_samples, y)
        indices = np.concatenate([top.helpful, top.harmful], axis=1)
        if query_labels is None and y is not None:
            query_labels = squeeze_column(check_labels(y))
        if query_predictions is None:
            query_predictions = _predict(estimator, X, query_labels)
        queries, samples, columns = render_samples(estimator, X, indices, image_shape)
        return cls.from_predictions(
            queries,
            samples,
            np.concatenate([top.helpful_influence, top.harmful_influence], axis=1),
            labels=shown[indices],
            query_labels=query_labels,
            query_predictions=query_predictions,
            columns=columns,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls, queries: Any, samples: Any, influence: Any, *, ax: Any = None, **texts: Any
    ) -> InfluenceDisplay:
        """Draw given samples and their influence.

        Parameters
        ----------
        queries, samples, influence : ndarray
            Parameters of the class.
        ax : matplotlib Axes, default=None
            Axes to replace by a grid. None: a new figure.
        **texts : array-like
            Further parameters of the class: ``labels``, ``query_labels``, ``query_predictions`` and
            ``columns``.

        Returns
        -------
        display : InfluenceDisplay
            The display.
        """
        return cls(queries, samples, influence, **texts).plot(ax)

    def _format_value(self, value: float) -> str:
        return f"{value:+.2g}"

    def _choose_frame(self, value: float) -> str | None:
        return BLUE if value > 0 else VERMILION


def _predict(estimator: TrainingInfluence, X: Any, labels: Any) -> np.ndarray | None:
    """Return the predicted labels; None if the labels are names that cannot be compared."""
    predictions = estimator._predict_labels(X)
    if labels is None:
        return predictions
    labels = np.asarray(labels)
    if is_numeric(labels) != is_numeric(predictions):
        return None
    # Predicted classes are spelled like labels of False and True.
    return predictions.astype(bool) if labels.dtype.kind == "b" else predictions
