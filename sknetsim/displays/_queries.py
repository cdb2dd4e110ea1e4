"""Base of the displays of queries with related samples: images, tables and captions.

Index legend: n queries; k related samples of each.
"""

from __future__ import annotations

import abc
import textwrap
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..estimators._base_reference import BaseReference
from ._appearance.formatting import abbreviate, format_label
from ._appearance.parts import join_columns, list_parts, open_samples
from ._appearance.rendering import (
    fit_images,
    format_columns,
    is_image_like,
    measure_size,
    name_columns,
    render_images,
)
from ._appearance.tables import (
    MOST_COLUMNS,
    align_tables,
    count_lines,
    draw_tables,
    measure_tables,
    wrap_text,
)
from ._figures import VERMILION, Display, draw_image

# Width and height of an image, and height of a line of its caption, in inches.
_IMAGE_INCHES, _LINE_INCHES = 1.1, 0.15

# Largest number of characters in a line of a caption, which is as wide as its image.
_CAPTION_CHARACTERS = 18


class QueriesDisplay(Display):
    """Base class of the displays of queries and the fitted samples that are related to them.

    Parameters
    ----------
    queries : ndarray of shape (n, ...)
        Images or rows of a table.
    samples : ndarray of shape (n, k, ...)
        Related samples of each query, in the same form.
    values : ndarray of shape (n, k)
        Value of each related sample.
    labels, predictions : array-like of shape (n, k) or (n, k, n_outputs), or None
        Labels and predictions of the related samples.
    query_labels, query_predictions : array-like of shape (n,) or (n, n_outputs), or None
        Labels and predictions of the queries.
    columns : list of str or None
        Names of the columns of a table. None: their numbers.
    """

    #: Public names of the related samples and of their values, as parameters and attributes.
    _names: ClassVar[tuple[str, str]]

    #: Name of the column of values in a table.
    _heading: ClassVar[str]

    def __init__(
        self,
        queries: Any,
        samples: Any,
        values: Any,
        *,
        labels: Any,
        predictions: Any,
        query_labels: Any,
        query_predictions: Any,
        columns: Sequence[str] | None,
    ):
        self.queries = np.asarray(queries)
        for name, given in zip(self._names, (samples, values), strict=True):
            setattr(self, name, np.asarray(given))
        self._check_shapes()
        shape, query_shape = self._related[1].shape, (len(self.queries),)
        self.labels = check_shape("labels", labels, shape)
        self.predictions = check_shape("predictions", predictions, shape)
        self.query_labels = check_shape("query_labels", query_labels, query_shape)
        self.query_predictions = check_shape("query_predictions", query_predictions, query_shape)
        self.columns = columns
        width = self.queries.shape[1] if self._is_table() else 0
        if columns is not None and len(columns) != width:
            raise ValueError(
                f"`columns` must have {width} names, one for each column of a table; got"
                f" {len(columns)}. Pass the names of all columns, or None for images."
            )

    @property
    def _related(self) -> tuple[np.ndarray, np.ndarray]:
        """Related samples, of shape (n, k, ...), and their values, of shape (n, k)."""
        samples, values = self._names
        return getattr(self, samples), getattr(self, values)

    @abc.abstractmethod
    def _format_value(self, value: float) -> str:
        """Return the value of a related sample as text."""

    def _choose_frame(self, value: float) -> str | None:
        """Return the colour of the frame of a related sample's image; None for a thin black one."""
        return None

    def _check_shapes(self) -> None:
        (samples, values), (name, value_name) = self._related, self._names
        if values.ndim != 2 or values.shape != samples.shape[:2]:
            raise ValueError(
                f"`{value_name}` must have shape (n_queries, n_{name}), the first two axes of"
                f" `{name}`; got {values.shape} with {name} of shape {samples.shape}. Pass one"
                " value for each of them."
            )
        if values.dtype.kind not in "fiu":
            raise ValueError(
                f"`{value_name}` must contain numbers; got dtype {values.dtype}. Pass numbers."
            )
        if len(samples) != len(self.queries) or samples.shape[2:] != self.queries.shape[1:]:
            raise ValueError(
                f"`{name}` must have shape (n_queries, n_{name}, ...), the last axes as in"
                f" `queries`; got {samples.shape} with queries of shape {self.queries.shape}. Pass"
                f" the {name} of each query in its shape."
            )

    def _is_table(self) -> bool:
        return self.queries.ndim == 2

    def _figure_size(self) -> tuple[float, float]:
        queries, shown = self._related[1].shape
        if self._is_table():
            return measure_tables(self._list_tables())
        captions = (caption for query in range(queries) for caption in self._list_captions(query))
        # One line more than the text, as a margin.
        lines = 2 + max(caption.count("\n") for caption in captions)
        return _IMAGE_INCHES * (shown + 1), (_IMAGE_INCHES + _LINE_INCHES * lines) * queries

    def _draw(self) -> None:
        queries, shown = self._related[1].shape
        if self._is_table():
            tables = self._list_tables()
            self._divide(queries, 1, height_ratios=[count_lines(rows) for rows in tables])
            return draw_tables(self.ax_[:, 0], tables)
        self._divide(queries, shown + 1)
        for query, axes in enumerate(self.ax_):
            self._draw_images(axes, query)

    def _draw_images(self, axes: np.ndarray, query: int) -> None:
        samples, values = self._related
        captions = self._list_captions(query)
        draw_image(axes[0], self.queries[query], captions[0])
        axes[0].title.set_color(_choose_colour(self.query_labels, self.query_predictions, query))
        for place, axis in enumerate(axes[1:]):
            frame = self._choose_frame(values[query, place])
            draw_image(axis, samples[query, place], captions[place + 1], frame)
            colour = _choose_colour(self.labels, self.predictions, (query, place))
            axis.title.set_color(colour)

    def _list_captions(self, query: int) -> list[str]:
        """Return the captions of a query and of its samples."""
        values = self._related[1][query]
        return [
            _format_caption("query", self.query_labels, self.query_predictions, query),
            *(
                _format_caption(
                    self._format_value(value), self.labels, self.predictions, (query, place)
                )
                for place, value in enumerate(values)
            ),
        ]

    def _extra_columns(self) -> dict[str, tuple[Any, Any]]:
        """Return the given labels and predictions by name, each as a pair (queries, samples)."""
        columns = {
            "label": (self.query_labels, self.labels),
            "predicted": (self.query_predictions, self.predictions),
        }
        return {
            name: pair for name, pair in columns.items() if any(side is not None for side in pair)
        }

    def _extra_cells(self, side: int, index: Any) -> list[str]:
        """Return label and prediction of a query (side 0) or of a sample (side 1), if given."""
        columns = [pair[side] for pair in self._extra_columns().values()]
        return ["" if values is None else format_label(values[index]) for values in columns]

    def _format_table(self, query: int) -> list[list[str]]:
        """Return the rows of a table as text: the heading, the query and its samples."""
        samples, values = self._related
        columns = range(self.queries.shape[1]) if self.columns is None else self.columns
        rows = [
            ([self._heading, *self._extra_columns()], columns),
            (["query", *self._extra_cells(0, query)], self.queries[query]),
        ]
        for place, value in enumerate(values[query]):
            extra = self._extra_cells(1, (query, place))
            rows.append(([self._format_value(value), *extra], samples[query, place]))
        return [
            [wrap_text(str(cell)) for cell in (*first, *abbreviate(cells, MOST_COLUMNS))]
            for first, cells in rows
        ]

    def _list_tables(self) -> list[list[list[str]]]:
        """Return the rows of each table."""
        return [self._format_table(query) for query in range(len(self.queries))]


def _format_caption(heading: str, labels: Any, predictions: Any, index: Any) -> str:
    """Return a caption: the heading, and below it the label and the prediction, if given."""
    texts = [] if labels is None else [format_label(labels[index])]
    if predictions is not None:
        texts.append(f"predicted {format_label(predictions[index])}")
    return "\n".join([heading, *textwrap.wrap(", ".join(texts), _CAPTION_CHARACTERS)])


def _choose_colour(labels: Any, predictions: Any, index: Any) -> str:
    """Return the colour of a caption: vermilion for a prediction of another class.

    Predictions of a regression never equal the labels exactly, so they stay black.
    """
    if labels is None or predictions is None or predictions.dtype.kind == "f":
        return "black"
    is_equal = format_label(labels[index]) == format_label(predictions[index])
    return "black" if is_equal else VERMILION


def render_samples(
    estimator: BaseReference, X: Any, indices: np.ndarray, image_shape: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Return queries and fitted samples as images or as cells of tables, and the names of columns.

    Parameters
    ----------
    estimator : BaseReference
        A fitted estimator.
    X : object
        The queries, in any form.
    indices : ndarray of shape (n, k), int64
        Positions of the related samples among the fitted ones.
    image_shape : tuple of int or None
        Shape of a sample as an image. None: its own shape.

    Returns
    -------
    queries : ndarray of shape (n, ...)
        The queries.
    samples : ndarray of shape (n, k, ...)
        Their related samples.
    columns : list of str or None
        Names of the columns of tables; None for images.
    """
    positions, fitted = range(len(open_samples(X))), indices.ravel().tolist()
    columns: list[str] | None = None
    if is_image_like(X, image_shape):
        queries = render_images(X, positions, image_shape)
        samples = render_images(estimator._X, fitted, image_shape)
        size = measure_size([queries.shape[1:], samples.shape[1:]])
        queries, samples = (fit_images(images, size) for images in (queries, samples))
    else:
        parts = [list_parts(X, positions), list_parts(estimator._X, fitted)]
        if len(parts[0]) != len(parts[1]):
            parts = [join_columns(side) for side in parts]  # Lists of different lengths.
        names = getattr(estimator, "feature_names_in_", None)
        tables = (format_columns(name_columns(side, names)) for side in parts)
        columns, queries, samples = align_tables(*tables)
    return queries, samples.reshape(*indices.shape, *samples.shape[1:]), columns


def check_shape(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return values as an array, or None for None; raise if the shape is wrong.

    Samples may have several values each, on one more axis.
    """
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape[: len(shape)] != shape or array.ndim > len(shape) + 1:
        raise ValueError(
            f"`{name}` must have shape {shape}, one value per sample, or with one"
            f" more axis for several; got {array.shape}. Pass the values of the same samples."
        )
    return array
