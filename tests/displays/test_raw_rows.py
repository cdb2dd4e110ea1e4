"""Explorer and displays of a Pipeline or a network on each kind of rows that it takes."""

import numpy as np
import pytest

from sknetsim import LabelDenoiser, NetworkDensity, NetworkKernel, NetworkNeighbors, explore
from sknetsim.displays import (
    ContributionsDisplay,
    DenoisingDisplay,
    DensityDisplay,
    NeighborsDisplay,
    SimilarityMatrixDisplay,
)

from ..kinds import ROWS, list_items
from .explorer.pages import read_data

pytestmark = pytest.mark.usefixtures("threads")


def format_cell(value):
    """Return the text that stands for a value of the kinds of rows."""
    if isinstance(value, str | list):
        return str(value)
    return "missing" if value is None or np.isnan(value) else f"{float(value):.4g}"


def list_columns(X):
    """Return the texts of each column of X; none if X consists of images."""
    if hasattr(X, "to_dict") and not hasattr(X, "columns") and not hasattr(X, "iloc"):
        X = X.to_dict()  # A Hugging Face dataset.
    if isinstance(X, dict):
        columns = {name: np.ravel(values) for name, values in X.items() if name != "image"}
    elif hasattr(X, "columns"):
        columns = {name: X[name] for name in X.columns}
    else:
        items = X.toarray() if hasattr(X, "toarray") else list_items(X)
        columns = {"text": items} if isinstance(items[0], str) else {}
        if isinstance(items[0], dict):
            columns = {name: [item[name][0] for item in items] for name in items[0]}
        elif isinstance(items[0], list):
            columns = {"0": items}
        elif np.ndim(items[0]) == 1:
            columns = {str(place): column for place, column in enumerate(np.array(items).T)}
    return {name: [format_cell(value) for value in values] for name, values in columns.items()}


def test_the_explorer_shows_the_original_rows(any_example, tmp_path):
    path = tmp_path / "page.html"
    explore(any_example.pipeline, any_example.X, any_example.y, path, n_neighbors=3)
    shown = read_data(path)["samples"]
    columns = list_columns(any_example.X)
    assert ("sheets" in shown) == (not columns)
    if columns:
        cells = zip(*shown["cells"], strict=True)
        cells = dict(zip(shown["columns"], map(list, cells), strict=True))
        assert {name: cells[name] for name in columns} == columns


def test_given_samples_are_shown_in_place_of_the_original_rows(any_example, tmp_path):
    texts = [f"sample {number}" for number in range(len(any_example.y))]
    path = tmp_path / "page.html"
    explore(any_example.pipeline, any_example.X, any_example.y, path, samples=texts, n_neighbors=3)
    assert read_data(path)["samples"]["cells"] == [[text] for text in texts]


def test_neighbours_are_shown_as_original_rows(any_example):
    neighbors = NetworkNeighbors(any_example.pipeline, n_neighbors=3).fit(any_example.X)
    queries = any_example.kind.take(any_example.X, ROWS)
    display = NeighborsDisplay.from_estimator(neighbors, queries)
    indices = neighbors.kneighbors(queries)[1]
    columns = list_columns(any_example.X)
    if not columns:
        assert display.queries.ndim > 2
        return
    assert display.columns == [*columns]
    cells = np.array([*columns.values()]).T
    assert display.queries.tolist() == cells[ROWS].tolist()
    assert display.neighbors.tolist() == cells[indices].tolist()
    ((first,), *_) = display.ax_
    drawn = first.tables[0].get_celld()
    assert drawn[0, 1].get_text().get_text() == next(iter(columns))
    assert drawn[1, 1].get_text().get_text() == cells[ROWS[0], 0]


def test_similarities_of_original_rows_are_drawn(any_example):
    kernel = NetworkKernel(any_example.pipeline)
    display = SimilarityMatrixDisplay.from_estimator(kernel, any_example.X, labels=any_example.y)
    np.testing.assert_array_equal(display.gram, kernel(any_example.X))


def test_contributions_of_original_rows_are_drawn(any_example):
    pair = (
        any_example.kind.take(any_example.X, ROWS[:1]),
        any_example.kind.take(any_example.X, ROWS[1:2]),
    )
    kernel = NetworkKernel(any_example.pipeline)
    display = ContributionsDisplay.from_estimator(kernel, *pair)
    similarity = kernel.contributions(*pair).similarity[0]
    assert f"{similarity:.2f}" in display.ax_.get_xlabel()


def test_densities_of_original_rows_are_drawn_at_given_coordinates(any_example):
    density = NetworkDensity(any_example.pipeline).fit(any_example.X)
    position = np.arange(len(any_example.y))
    display = DensityDisplay.from_estimator(density, any_example.X, coordinates=position)
    np.testing.assert_array_equal(display.log_density, density.score_samples(any_example.X))


def test_smoothed_labels_of_original_rows_are_drawn(any_example):
    denoiser = LabelDenoiser(any_example.pipeline).fit(any_example.X, any_example.y)
    display = DenoisingDisplay.from_estimator(denoiser, any_example.X, any_example.y)
    expected = denoiser.denoising(any_example.X).labels
    np.testing.assert_array_equal(display.denoising.labels, expected)
