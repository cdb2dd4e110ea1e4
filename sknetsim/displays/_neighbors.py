"""Queries and the samples that a network finds most similar, as pictures or rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._kernels.similarities import SIMILARITIES
from .._networks.inputs import Rows
from ..estimators._base import check_is_fitted
from ..estimators.neighbors import NetworkNeighbors
from ._figures import VERMILION, Display, draw_image
from ._rendering import is_image_like, render_images, render_table

# Inches of a picture, and of the words above it; of a letter of a table, and of its lines.
_SIZE, _WORDS = 1.1, 0.45

_LETTER, _LINE = 0.085, 0.24


class NeighborsDisplay(Display):
    """Samples and those that a network finds most similar to them: images, or rows of a table.

    Images stand in a row for each query; above each neighbour its similarity, its label and what
    the network says of it, in vermilion where that is something else. Tables stand one above the
    other, the query first.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, ...)
        Images in [0, 1], (height, width) or (height, width, channels) each, or rows of a table,
        (n_columns,) each.
    neighbors : ndarray of shape (n_queries, n_neighbors, ...)
        The most similar ones of each.
    similarities : ndarray of shape (n_queries, n_neighbors)
        Their similarities, in [-1, 1].
    labels : array-like of shape (n_queries, n_neighbors), default=None
        Labels of the neighbours.
    predictions : array-like of shape (n_queries, n_neighbors), default=None
        What the network says of the neighbours.
    query_labels, query_predictions : array-like of shape (n_queries,), default=None
        Likewise of the queries.
    columns : list of str of length n_columns, default=None
        Names of a table's columns; None: their numbers.

    Attributes
    ----------
    ax_ : ndarray of shape (n_queries, n_neighbors + 1) of matplotlib Axes
        Where each image was drawn; of tables (n_queries, 1).
    figure_ : matplotlib Figure
        The figure of these axes.

    See Also
    --------
    NetworkNeighbors : Finds the neighbours.

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
        several, one = self.similarities.shape, (len(self.queries),)
        self.labels = _checked("labels", labels, several)
        self.predictions = _checked("predictions", predictions, several)
        self.query_labels = _checked("query_labels", query_labels, one)
        self.query_predictions = _checked("query_predictions", query_predictions, one)
        self.columns = columns
        width = self.queries.shape[1] if self.queries.ndim == 2 else None
        if columns is not None and len(columns) != width:
            raise ValueError(
                f"columns has {len(columns)} names; allowed are those of the columns of a table, of"
                f" which there are {width or 'none'}: hand over one for each."
            )

    @classmethod
    def from_estimator(
        cls,
        estimator: NetworkNeighbors,
        X: Any,
        *,
        n_neighbors: int | None = None,
        labels: Any = None,
        predictions: Any = None,
        query_labels: Any = None,
        query_predictions: Any = None,
        image_shape: Sequence[int] | None = None,
        ax: Any = None,
    ) -> NeighborsDisplay:
        """Find the neighbours of the rows of X, and draw them.

        Parameters
        ----------
        estimator : NetworkNeighbors
            A fitted one.
        X : array-like of shape (n_queries, ...)
            The queries.
        n_neighbors : int, default=None
            Number of neighbours; None: that of the estimator.
        labels : array-like of shape (n_samples_fit,), default=None
            Labels of the fitted rows.
        predictions : array-like of shape (n_samples_fit,), default=None
            What the network says of the fitted rows.
        query_labels, query_predictions : array-like of shape (n_queries,), default=None
            Likewise of the queries.
        image_shape : tuple of int, default=None
            Shape of a row as an image, (height, width), (channels, height, width) or (height,
            width, channels); None: the one that it has, and rows of one axis are those of a table.
        ax : matplotlib Axes, default=None
            What to draw in place of; None: a new figure.

        Returns
        -------
        display : NeighborsDisplay
            The display.
        """
        if not isinstance(estimator, NetworkNeighbors):
            raise TypeError(
                f"estimator is a {type(estimator).__name__}; allowed is a fitted NetworkNeighbors:"
                " put the network in one."
            )
        check_is_fitted(estimator, "n_samples_fit_")
        fitted = (estimator.n_samples_fit_,)
        labels = _checked("labels", labels, fitted)
        predictions = _checked("predictions", predictions, fitted)
        distances, indices = estimator.kneighbors(X, n_neighbors)
        return cls.from_predictions(
            *_appearances(estimator, X, indices, image_shape),
            SIMILARITIES[estimator.distance](distances),
            labels=None if labels is None else labels[indices],
            predictions=None if predictions is None else predictions[indices],
            query_labels=query_labels,
            query_predictions=query_predictions,
            columns=_columns(estimator, X),
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls, queries: Any, neighbors: Any, similarities: Any, *, ax: Any = None, **words: Any
    ) -> NeighborsDisplay:
        """Draw neighbours that were found.

        Parameters
        ----------
        queries, neighbors, similarities : ndarray
            As of the class.
        ax : matplotlib Axes, default=None
            What to draw in place of; None: a new figure.
        **words : array-like
            ``labels``, ``predictions``, ``query_labels``, ``query_predictions`` and ``columns``, as
            of the class.

        Returns
        -------
        display : NeighborsDisplay
            The display.
        """
        return cls(queries, neighbors, similarities, **words).plot(ax)

    def _is_table(self) -> bool:
        return self.queries.ndim == 2

    def _size(self) -> tuple[float, float]:
        rows, neighbors = self.similarities.shape
        if self._is_table():
            return _LETTER * self._widths().sum(), _LINE * (neighbors + 3) * rows
        return _SIZE * (neighbors + 1), (_SIZE + _WORDS) * rows

    def _draw(self) -> None:
        """Draw in place of ``ax_``, and put the axes of the images or tables there."""
        rows, neighbors = self.similarities.shape
        self._divide(rows, 1 if self._is_table() else neighbors + 1)
        for row, axes in enumerate(self.ax_):
            if self._is_table():
                self._draw_table(axes[0], row)
            else:
                self._draw_images(axes, row)

    def _draw_images(self, axes: np.ndarray, row: int) -> None:
        known: tuple[Any, ...] = (self.query_labels, self.query_predictions, row)
        draw_image(axes[0], self.queries[row], f"query\n{_said(*known)}".rstrip())
        axes[0].title.set_color(_colour(*known))
        for place, axis in enumerate(axes[1:]):
            known = self.labels, self.predictions, (row, place)
            words = f"{self.similarities[row, place]:.2f}\n{_said(*known)}".rstrip()
            draw_image(axis, self.neighbors[row, place], words)
            axis.title.set_color(_colour(*known))

    def _headings(self) -> dict[str, tuple[Any, Any]]:
        """What is known of samples beside their columns: of the queries, and of neighbours."""
        known = {
            "label": (self.query_labels, self.labels),
            "says": (self.query_predictions, self.predictions),
        }
        return {
            name: pair for name, pair in known.items() if any(side is not None for side in pair)
        }

    def _lines(self, row: int) -> list[list[str]]:
        """A table's heading, its query and the neighbours, as words."""
        columns = range(self.queries.shape[1]) if self.columns is None else self.columns
        lines = [
            ["similarity", *self._headings(), *columns],
            ["query", *self._known(0, row), *self.queries[row]],
        ]
        for place, similarity in enumerate(self.similarities[row]):
            known = self._known(1, (row, place))
            lines.append([f"{similarity:.2f}", *known, *self.neighbors[row, place]])
        return [[str(word) for word in line] for line in lines]

    def _widths(self) -> np.ndarray:
        """Letters of each column of the tables."""
        lines = [line for row in range(len(self.queries)) for line in self._lines(row)]
        return np.max([[len(word) for word in line] for line in lines], axis=0) + 2

    def _draw_table(self, axis: Any, row: int) -> None:
        names, *cells = self._lines(row)
        widths = self._widths() / self._widths().sum()
        drawn = axis.table(
            cells, colLabels=names, colWidths=widths, cellLoc="right", bbox=(0, 0, 1, 1)
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(8)
        for (line, _), cell in drawn.get_celld().items():
            cell.set(edgecolor="0.85", facecolor="0.93" if line == 1 else "white")
            cell.get_text().set(parse_math=False, weight="bold" if line == 0 else "normal")
        axis.set_axis_off()

    def _known(self, side: int, at: Any) -> list[str]:
        found = [pair[side] for pair in self._headings().values()]
        return ["" if values is None else str(values[at]) for values in found]


def _said(labels: Any, predictions: Any, at: Any) -> str:
    """A label, and what the network says."""
    words = [] if labels is None else [f"{labels[at]}"]
    return ", ".join(words if predictions is None else [*words, f"says {predictions[at]}"])


def _colour(labels: Any, predictions: Any, at: Any) -> str:
    """Numbers that are predicted are never quite the labels: nothing is said of them."""
    if labels is None or predictions is None or "f" in (labels.dtype.kind, predictions.dtype.kind):
        return "black"
    return VERMILION if str(labels[at]) != str(predictions[at]) else "black"


def _appearances(
    estimator: NetworkNeighbors, X: Any, indices: np.ndarray, image_shape: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and neighbours as images, or as the cells of tables."""
    fitted, chosen, asked = estimator._X, indices.ravel().tolist(), range(len(Rows(X)))
    if is_image_like(X, image_shape):
        found = [
            render_images(rows, at, image_shape) for rows, at in ((X, asked), (fitted, chosen))
        ]
    else:
        found = [render_table(rows, at).cells for rows, at in ((X, asked), (fitted, chosen))]
    return found[0], found[1].reshape(*indices.shape, *found[1].shape[1:])


def _columns(estimator: NetworkNeighbors, X: Any) -> list[str] | None:
    names = getattr(X, "columns", getattr(estimator, "feature_names_in_", None))
    return None if names is None else [str(name) for name in names]


def _check_neighbors(queries: np.ndarray, neighbors: np.ndarray, similarities: np.ndarray) -> None:
    if similarities.ndim != 2 or similarities.shape != neighbors.shape[:2]:
        raise ValueError(
            f"similarities has shape {similarities.shape} and neighbors {neighbors.shape}; allowed"
            " is one for each neighbour: (n_queries, n_neighbors), and the same before what a"
            " neighbour looks like."
        )
    if len(neighbors) != len(queries) or neighbors.shape[2:] != queries.shape[1:]:
        raise ValueError(
            f"neighbors has shape {neighbors.shape} and queries {queries.shape}; allowed are one"
            " row of neighbours for each query, all of its shape."
        )


def _checked(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if values is None:
        return None
    found = np.asarray(values)
    if found.shape != shape:
        raise ValueError(
            f"{name} has shape {found.shape}; allowed is one for each sample, of shape {shape}."
        )
    return found
