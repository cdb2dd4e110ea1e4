"""Display of queries and their neighbours, as images, texts or rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._kernels.similarities import SIMILARITIES
from ..estimators._base import check_is_fitted
from ..estimators.neighbors import NetworkNeighbors
from ._queries import QueriesDisplay, check_shape, render_samples


class NeighborsDisplay(QueriesDisplay):
    """Queries and the samples most similar to them, as images, texts or rows of a table.

    Each row of images has a query, followed by its neighbours. The caption of a neighbour has its
    similarity, its label and its prediction, in vermilion if the prediction differs from the label.
    Tables are drawn one below the other, each with the query in its first row. They have up to 16
    columns, which are the first ones and the last one of a wider table, and a text has up to four
    lines.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, ...)
        Images with values in [0, 1], of shape (height, width) or (height, width, channels) each, or
        rows of a table, of shape (n_columns,) each.
    neighbors : ndarray of shape (n_queries, n_neighbors, ...)
        Neighbours of each query, in the same form.
    similarities : ndarray of shape (n_queries, n_neighbors)
        Similarities of the neighbours to their query, in [-1, 1].
    labels : array-like of shape (n_queries, n_neighbors, ...), default=None
        Labels of the neighbours, with a last axis if each has several.
    predictions : array-like of shape (n_queries, n_neighbors, ...), default=None
        Predictions of the network for the neighbours.
    query_labels : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
        Labels of the queries.
    query_predictions : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
        Predictions of the network for the queries.
    columns : list of str of length n_columns, default=None
        Names of the columns of a table. None: their numbers.

    Attributes
    ----------
    ax_ : ndarray of shape (n_queries, n_neighbors + 1) of matplotlib Axes
        Axes of each image; for tables, the shape is (n_queries, 1).
    figure_ : matplotlib Figure
        Figure of these axes.

    See Also
    --------
    NetworkNeighbors : Estimator that finds the neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sknetsim import NetworkNeighbors
    >>> from sknetsim.displays import NeighborsDisplay
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> X = torch.rand(20, 1, 4, 4)
    >>> neighbors = NetworkNeighbors(network, n_neighbors=3).fit(X)
    >>> display = NeighborsDisplay.from_estimator(neighbors, X[:2])
    >>> display.ax_.shape
    (2, 4)
    """

    _names = ("neighbors", "similarities")
    _heading = "similarity"

    def __init__(
        self,
        queries: Any,
        neighbors: Any,
        similarities: Any,
        *,
        labels: Any = None,
        predictions: Any = None,
        query_labels: Any = None,
        query_predictions: Any = None,
        columns: Sequence[str] | None = None,
    ):
        super().__init__(
            queries,
            neighbors,
            similarities,
            labels=labels,
            predictions=predictions,
            query_labels=query_labels,
            query_predictions=query_predictions,
            columns=columns,
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: NetworkNeighbors,
        X: Any,
        *,
        n_neighbors: int | None = None,
        y: Any = None,
        labels: Any = None,
        predictions: Any = None,
        query_labels: Any = None,
        query_predictions: Any = None,
        image_shape: Sequence[int] | None = None,
        ax: Any = None,
    ) -> NeighborsDisplay:
        """Find the neighbours of the samples of X, and draw them.

        Samples are drawn as they were passed, before the steps of a Pipeline: images, texts, or
        the named columns of a table, in which missing values are "missing". Of samples that contain
        an image and other values, the image is drawn. Images of different sizes are enlarged to one
        size, with light grey margins.

        Parameters
        ----------
        estimator : NetworkNeighbors
            A fitted estimator.
        X : array-like of shape (n_queries, ...), table, list of texts or images, dict or Dataset
            The queries.
        n_neighbors : int, default=None
            Number of neighbours. None: that of the estimator.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels at which the losses are compared, only with ``output="loss"``. None: the
            predicted ones.
        labels : array-like of shape (n_samples_fit,) or (n_samples_fit, n_outputs), default=None
            Labels of the fitted samples.
        predictions : array-like of shape (n_samples_fit,), default=None
            Predictions of the network for the fitted samples.
        query_labels : array-like of shape (n_queries,), default=None
            Labels of the queries.
        query_predictions : array-like of shape (n_queries,), default=None
            Predictions of the network for the queries.
        image_shape : tuple of int, default=None
            Shape of a sample as an image, (height, width), (channels, height, width) or (height,
            width, channels). None: its own shape, and samples with one axis are rows of a table.
        ax : matplotlib Axes, default=None
            Axes to replace by a grid. None: a new figure.

        Returns
        -------
        display : NeighborsDisplay
            The display.

        Raises
        ------
        TypeError
            If ``estimator`` is not a NetworkNeighbors.
        ValueError
            If there is not one label or prediction per sample, or if ``image_shape`` does not fit.
        """
        if not isinstance(estimator, NetworkNeighbors):
            raise TypeError(
                "`estimator` must be a fitted NetworkNeighbors; got"
                f" {type(estimator).__name__}. Fit NetworkNeighbors(network)."
            )
        check_is_fitted(estimator, "n_samples_fit_")
        fitted_shape = (estimator.n_samples_fit_,)
        labels = check_shape("labels", labels, fitted_shape)
        predictions = check_shape("predictions", predictions, fitted_shape)
        distances, indices = estimator.kneighbors(X, n_neighbors, y=y)
        queries, neighbors, columns = render_samples(estimator, X, indices, image_shape)
        return cls.from_predictions(
            queries,
            neighbors,
            SIMILARITIES[estimator.distance](distances),
            labels=None if labels is None else labels[indices],
            predictions=None if predictions is None else predictions[indices],
            query_labels=query_labels,
            query_predictions=query_predictions,
            columns=columns,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls, queries: Any, neighbors: Any, similarities: Any, *, ax: Any = None, **texts: Any
    ) -> NeighborsDisplay:
        """Draw given neighbours.

        Parameters
        ----------
        queries, neighbors, similarities : ndarray
            Parameters of the class.
        ax : matplotlib Axes, default=None
            Axes to replace by a grid. None: a new figure.
        **texts : array-like
            Further parameters of the class: ``labels``, ``predictions``, ``query_labels``,
            ``query_predictions`` and ``columns``.

        Returns
        -------
        display : NeighborsDisplay
            The display.
        """
        return cls(queries, neighbors, similarities, **texts).plot(ax)

    def _format_value(self, value: float) -> str:
        return f"{value:.2f}"
