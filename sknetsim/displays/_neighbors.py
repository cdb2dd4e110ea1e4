"""Display of queries and their neighbours, as images, texts or rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._kernels.similarities import SIMILARITIES
from ..estimators._base import check_is_fitted
from ..estimators.neighbors import NetworkNeighbors
from ._figures import VERMILION, Display, draw_image
from ._formatting import abbreviate
from ._parts import join_columns, list_parts, open_samples
from ._rendering import (
    fit_images,
    format_columns,
    is_image_like,
    measure_size,
    name_columns,
    render_images,
)
from ._tables import MOST_COLUMNS, align_tables, count_lines, draw_tables, measure_tables, wrap_text

# Width and height of an image, and height of its caption, in inches.
_IMAGE_INCHES, _CAPTION_INCHES = 1.1, 0.45


class NeighborsDisplay(Display):
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
    labels : array-like of shape (n_queries, n_neighbors), default=None
        Labels of the neighbours.
    predictions : array-like of shape (n_queries, n_neighbors), default=None
        Predictions of the network for the neighbours.
    query_labels : array-like of shape (n_queries,), default=None
        Labels of the queries.
    query_predictions : array-like of shape (n_queries,), default=None
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
        self.queries, self.neighbors = np.asarray(queries), np.asarray(neighbors)
        self.similarities = np.asarray(similarities)
        _check_neighbors(self.queries, self.neighbors, self.similarities)
        shape, query_shape = self.similarities.shape, (len(self.queries),)
        self.labels = _check_shape("labels", labels, shape)
        self.predictions = _check_shape("predictions", predictions, shape)
        self.query_labels = _check_shape("query_labels", query_labels, query_shape)
        self.query_predictions = _check_shape("query_predictions", query_predictions, query_shape)
        self.columns = columns
        width = self.queries.shape[1] if self._is_table() else 0
        if columns is not None and len(columns) != width:
            raise ValueError(
                f"`columns` must have {width} names, one for each column of a table; got"
                f" {len(columns)}. Pass the names of all columns, or None for images."
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
        labels : array-like of shape (n_samples_fit,), default=None
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
        labels = _check_shape("labels", labels, fitted_shape)
        predictions = _check_shape("predictions", predictions, fitted_shape)
        distances, indices = estimator.kneighbors(X, n_neighbors, y=y)
        queries, neighbors, columns = _render_samples(estimator, X, indices, image_shape)
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

    def _is_table(self) -> bool:
        return self.queries.ndim == 2

    def _figure_size(self) -> tuple[float, float]:
        queries, neighbors = self.similarities.shape
        if self._is_table():
            return measure_tables(self._list_tables())
        return _IMAGE_INCHES * (neighbors + 1), (_IMAGE_INCHES + _CAPTION_INCHES) * queries

    def _draw(self) -> None:
        queries, neighbors = self.similarities.shape
        if self._is_table():
            tables = self._list_tables()
            self._divide(queries, 1, height_ratios=[count_lines(rows) for rows in tables])
            return draw_tables(self.ax_[:, 0], tables)
        self._divide(queries, neighbors + 1)
        for query, axes in enumerate(self.ax_):
            self._draw_images(axes, query)

    def _draw_images(self, axes: np.ndarray, query: int) -> None:
        texts: tuple[Any, ...] = (self.query_labels, self.query_predictions, query)
        draw_image(axes[0], self.queries[query], f"query\n{_format_caption(*texts)}".rstrip())
        axes[0].title.set_color(_choose_colour(*texts))
        for place, axis in enumerate(axes[1:]):
            texts = self.labels, self.predictions, (query, place)
            similarity = self.similarities[query, place]
            caption = f"{similarity:.2f}\n{_format_caption(*texts)}".rstrip()
            draw_image(axis, self.neighbors[query, place], caption)
            axis.title.set_color(_choose_colour(*texts))

    def _extra_columns(self) -> dict[str, tuple[Any, Any]]:
        """Return the given labels and predictions by name, each as a pair (queries, neighbours)."""
        columns = {
            "label": (self.query_labels, self.labels),
            "predicted": (self.query_predictions, self.predictions),
        }
        return {
            name: pair for name, pair in columns.items() if any(side is not None for side in pair)
        }

    def _extra_cells(self, side: int, index: Any) -> list[str]:
        """Return label and prediction of a query (side 0) or a neighbour (side 1), if given."""
        columns = [pair[side] for pair in self._extra_columns().values()]
        return ["" if values is None else str(values[index]) for values in columns]

    def _format_table(self, query: int) -> list[list[str]]:
        """Return the rows of a table as text: the heading, the query and its neighbours."""
        columns = range(self.queries.shape[1]) if self.columns is None else self.columns
        rows = [
            (["similarity", *self._extra_columns()], columns),
            (["query", *self._extra_cells(0, query)], self.queries[query]),
        ]
        for place, similarity in enumerate(self.similarities[query]):
            extra = self._extra_cells(1, (query, place))
            rows.append(([f"{similarity:.2f}", *extra], self.neighbors[query, place]))
        return [
            [wrap_text(str(cell)) for cell in (*first, *abbreviate(cells, MOST_COLUMNS))]
            for first, cells in rows
        ]

    def _list_tables(self) -> list[list[list[str]]]:
        """Return the rows of each table."""
        return [self._format_table(query) for query in range(len(self.queries))]


def _format_caption(labels: Any, predictions: Any, index: Any) -> str:
    """Return the label and the prediction of a sample as text; it is empty if neither is given."""
    texts = [] if labels is None else [f"{labels[index]}"]
    if predictions is not None:
        texts.append(f"predicted {predictions[index]}")
    return ", ".join(texts)


def _choose_colour(labels: Any, predictions: Any, index: Any) -> str:
    """Return the colour of a caption: vermilion for a prediction of another class.

    Predictions of a regression never equal the labels exactly, so they stay black.
    """
    if labels is None or predictions is None or "f" in (labels.dtype.kind, predictions.dtype.kind):
        return "black"
    return VERMILION if str(labels[index]) != str(predictions[index]) else "black"


def _render_samples(
    estimator: NetworkNeighbors, X: Any, indices: np.ndarray, image_shape: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Return queries and neighbours as images or as cells of tables, and the names of columns."""
    positions, fitted = range(len(open_samples(X))), indices.ravel().tolist()
    columns: list[str] | None = None
    if is_image_like(X, image_shape):
        queries = render_images(X, positions, image_shape)
        neighbors = render_images(estimator._X, fitted, image_shape)
        size = measure_size([queries.shape[1:], neighbors.shape[1:]])
        queries, neighbors = (fit_images(images, size) for images in (queries, neighbors))
    else:
        parts = [list_parts(X, positions), list_parts(estimator._X, fitted)]
        if len(parts[0]) != len(parts[1]):
            parts = [join_columns(side) for side in parts]  # Lists of different lengths.
        names = getattr(estimator, "feature_names_in_", None)
        tables = (format_columns(name_columns(side, names)) for side in parts)
        columns, queries, neighbors = align_tables(*tables)
    return queries, neighbors.reshape(*indices.shape, *neighbors.shape[1:]), columns


def _check_neighbors(queries: np.ndarray, neighbors: np.ndarray, similarities: np.ndarray) -> None:
    if similarities.ndim != 2 or similarities.shape != neighbors.shape[:2]:
        raise ValueError(
            "`similarities` must have shape (n_queries, n_neighbors), the first two axes of"
            f" `neighbors`; got {similarities.shape} with neighbors of shape {neighbors.shape}."
            " Pass one similarity per neighbour."
        )
    if len(neighbors) != len(queries) or neighbors.shape[2:] != queries.shape[1:]:
        raise ValueError(
            "`neighbors` must have shape (n_queries, n_neighbors, ...), the last axes as in"
            f" `queries`; got {neighbors.shape} with queries of shape {queries.shape}. Pass the"
            " neighbours of each query in its shape."
        )


def _check_shape(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return values as an array, or None for None; raise if the shape is wrong."""
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(
            f"`{name}` must have shape {shape}, one value per sample; got {array.shape}. Pass the"
            " values of the same samples."
        )
    return array
