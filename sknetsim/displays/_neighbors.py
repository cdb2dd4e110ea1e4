"""Queries and the samples that a network finds most similar, as pictures or rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _kernels
from .._base import check_is_fitted
from .._inputs import Rows
from ..neighbors import NetworkNeighbors
from ._figures import Display, pictures

# Inches of a picture, and of the words above it.
_SIZE, _WORDS = 1.1, 0.45


class NeighborsDisplay(Display):
    """Images and the images that a network finds most similar to them, a row for each.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, height, width) or (n_queries, height, width, channels)
        Images, in [0, 1].
    neighbors : ndarray of shape (n_queries, n_neighbors, height, width) or (..., channels)
        The most similar ones of each, in [0, 1].
    similarities : ndarray of shape (n_queries, n_neighbors)
        Their similarities, in [-1, 1].
    query_words : list of str of length n_queries, default=None
        What stands above the queries; None: "query".
    neighbor_words : list of list of str, default=None
        What stands above the neighbours, after their similarity.

    Attributes
    ----------
    ax_ : ndarray of shape (n_queries, n_neighbors + 1) of matplotlib Axes
        Where each image was drawn.
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
        query_words: Sequence[str] | None = None,
        neighbor_words: Sequence[Sequence[str]] | None = None,
    ):
        self.queries, self.neighbors = np.asarray(queries), np.asarray(neighbors)
        self.similarities = np.asarray(similarities)
        count = len(self.queries)
        if self.similarities.ndim != 2 or self.similarities.shape != self.neighbors.shape[:2]:
            raise ValueError(
                f"similarities has shape {self.similarities.shape} and neighbors"
                f" {self.neighbors.shape}; allowed is one for each neighbour: (n_queries,"
                " n_neighbors), and the same before the neighbours' pixels."
            )
        if len(self.neighbors) != count:
            raise ValueError(
                f"neighbors has {len(self.neighbors)} rows and queries {count}; allowed are as"
                " many: one row of neighbours for each query."
            )
        self.query_words = query_words
        self.neighbor_words = neighbor_words

    @classmethod
    def from_estimator(
        cls,
        estimator: NetworkNeighbors,
        X: Any,
        *,
        n_neighbors: int | None = None,
        labels: Any = None,
        predictions: Any = None,
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
            Labels of the fitted rows, drawn above the neighbours.
        predictions : array-like of shape (n_queries,), default=None
            What the network says of the queries, drawn above them.
        image_shape : tuple of int, default=None
            Shape of a row as an image, (height, width) or (channels, height, width); None: the one
            that it has.
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
        distances, indices = estimator.kneighbors(X, n_neighbors)
        fitted = estimator._X
        images = pictures(fitted, indices.ravel().tolist(), image_shape)
        words = None if labels is None else np.asarray(labels)[indices].astype(str).tolist()
        said = None if predictions is None else [f"says {word}" for word in predictions]
        return cls(
            pictures(X, range(len(Rows(X))), image_shape),
            images.reshape(*indices.shape, *images.shape[1:]),
            _kernels.SIMILARITIES[estimator.distance](distances),
            query_words=said,
            neighbor_words=words,
        ).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        queries: Any,
        neighbors: Any,
        similarities: Any,
        *,
        query_words: Sequence[str] | None = None,
        neighbor_words: Sequence[Sequence[str]] | None = None,
        ax: Any = None,
    ) -> NeighborsDisplay:
        """Draw neighbours that were found.

        Parameters
        ----------
        queries, neighbors, similarities : ndarray
            As of the class.
        query_words, neighbor_words : list, default=None
            As of the class.
        ax : matplotlib Axes, default=None
            What to draw in place of; None: a new figure.

        Returns
        -------
        display : NeighborsDisplay
            The display.
        """
        found = cls(
            queries,
            neighbors,
            similarities,
            query_words=query_words,
            neighbor_words=neighbor_words,
        )
        return found.plot(ax)

    def _size(self) -> tuple[float, float]:
        rows, neighbors = self.similarities.shape
        return _SIZE * (neighbors + 1), (_SIZE + _WORDS) * rows

    def _draw(self) -> None:
        """Draw in place of ``ax_``, and put the axes of the images there."""
        rows, columns = self.similarities.shape[0], self.similarities.shape[1] + 1
        whole = self.ax_
        whole.set_axis_off()
        grid = whole.get_subplotspec().subgridspec(rows, columns)
        self.ax_ = np.reshape(grid.subplots(), (rows, columns))
        for row, axes in enumerate(self.ax_):
            self._draw_image(axes[0], self.queries[row], self._query(row))
            for place, axis in enumerate(axes[1:]):
                self._draw_image(axis, self.neighbors[row, place], self._neighbor(row, place))

    def _query(self, row: int) -> str:
        return "query" if self.query_words is None else self.query_words[row]

    def _neighbor(self, row: int, place: int) -> str:
        word = "" if self.neighbor_words is None else f"\n{self.neighbor_words[row][place]}"
        return f"{self.similarities[row, place]:.2f}{word}"

    @staticmethod
    def _draw_image(axis: Any, image: np.ndarray, words: str) -> None:
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_title(words, fontsize=8, parse_math=False)
        axis.set(xticks=[], yticks=[])
