"""Display of neighbours: images, tables, captions and errors."""

import numpy as np
import pandas
import polars
import pytest
import torch
from matplotlib import pyplot
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from sknetsim import NetworkKernel, NetworkNeighbors
from sknetsim.displays import NeighborsDisplay
from sknetsim.displays._appearance.rendering import Table
from sknetsim.displays._appearance.tables import align_tables


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_images_of_neighbours_have_their_similarity_and_label(images, distance):
    network, X = images
    estimator = NetworkNeighbors(network, n_neighbors=3, distance=distance).fit(X)
    display = NeighborsDisplay.from_estimator(
        estimator, X[:2], labels=np.arange(12), query_predictions=["a", "$b"]
    )
    gram, (_, indices) = NetworkKernel(network)(X), estimator.kneighbors(X[:2])
    titles = [axis.get_title() for axis in display.ax_[:, 0]]
    assert titles == ["query\npredicted a", "query\npredicted $b"]
    for row in range(2):
        for place in range(3):
            index = indices[row, place]
            axis = display.ax_[row, place + 1]
            assert axis.get_title() == f"{gram[row, index]:.2f}\n{index}"
            low, high = X[indices].min(), X[indices].max()
            expected = (X[index, 0] - low) / (high - low)
            np.testing.assert_allclose(axis.images[0].get_array(), expected)


def test_captions_of_wrong_predictions_are_vermilion():
    images = np.zeros((2, 2, 4, 4))
    display = NeighborsDisplay.from_predictions(
        images[:, 0],
        images,
        np.zeros((2, 2)),
        labels=[[1, 2], [1, 2]],
        predictions=[[1, 1], [2, 2]],
        query_labels=["a", "b"],
        query_predictions=["a", "a"],
    )
    colours = [[axis.title.get_color() for axis in row] for row in display.ax_]
    assert colours == [["black", "black", "#D55E00"], ["#D55E00", "#D55E00", "black"]]


def test_flat_samples_are_drawn_in_the_given_image_shape(images):
    _, X = images
    rows = X.flatten(1).numpy()
    network = nn.Linear(16, 2).double()
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(rows)
    display = NeighborsDisplay.from_estimator(estimator, rows[:1], image_shape=(4, 4))
    assert display.queries.shape == (1, 4, 4) and display.ax_.shape == (1, 3)
    with pytest.raises(
        ValueError, match=r"`image_shape` must be .* a sample of shape \(16,\); got \(3, 4\)"
    ):
        NeighborsDisplay.from_estimator(estimator, rows[:1], image_shape=(3, 4))


@pytest.mark.parametrize("named", [True, False])
def test_rows_of_a_table_are_drawn_below_their_query(named):
    X = np.random.default_rng(0).standard_normal((12, 3))
    X = pandas.DataFrame(X, columns=["a", "$b", "c"]) if named else X
    estimator = NetworkNeighbors(nn.Linear(3, 2).double(), n_neighbors=2).fit(X)
    labels, query = np.arange(12), X[:1]
    display = NeighborsDisplay.from_estimator(estimator, query, labels=labels, query_labels=["q"])
    ((axis,),) = display.ax_
    (table,) = axis.tables
    cells = {place: cell.get_text().get_text() for place, cell in table.get_celld().items()}
    names = ["a", "$b", "c"] if named else ["0", "1", "2"]
    assert [cells[0, column] for column in range(5)] == ["similarity", "label", *names]
    assert [cells[1, column] for column in range(2)] == ["query", "q"]
    _, ((_, second),) = estimator.kneighbors(query)
    assert cells[3, 1] == str(second)
    assert cells[3, 2] == f"{np.asarray(X)[second, 0]:.4g}"


def test_tables_of_any_values_can_be_drawn():
    queries, neighbors = [["x", 1]], [[["y", 2], ["z", 3]]]
    display = NeighborsDisplay.from_predictions(queries, neighbors, [[0.5, -0.25]])
    cells = display.ax_[0, 0].tables[0].get_celld()
    assert [cells[3, column].get_text().get_text() for column in range(3)] == ["-0.25", "z", "3"]


def test_colour_images_keep_their_channels():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    X = torch.rand(5, 3, 4, 4)
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    assert NeighborsDisplay.from_estimator(estimator, X[:1]).queries.shape == (1, 4, 4, 3)


def test_inconsistent_shapes_raise_an_error():
    images = np.zeros((2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"`similarities` must have shape .*; got \(2, 2\)"):
        NeighborsDisplay(images[:, 0], images, np.zeros((2, 2)))
    with pytest.raises(
        ValueError, match=r"`neighbors` must .* got \(2, 3, 4, 4\) with queries .* \(1, 4"
    ):
        NeighborsDisplay(images[:1, 0], images, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2, 3\), .* got \(3,\)"):
        NeighborsDisplay(images[:, 0], images, np.zeros((2, 3)), labels=[1, 2, 3])


def test_labels_and_predictions_need_one_value_per_fitted_sample(images):
    network, X = images
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    for name in ("labels", "predictions"):
        with pytest.raises(ValueError, match=rf"`{name}` must have shape \(12,\), .* got \(2,\)"):
            NeighborsDisplay.from_estimator(estimator, X[:1], **{name: [0, 1]})


def test_axes_outside_of_a_grid_raise_an_error(images):
    network, X = images
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    with pytest.raises(ValueError, match="`ax` must be part of a grid"):
        NeighborsDisplay.from_estimator(estimator, X[:1], ax=pyplot.figure().add_axes((0, 0, 1, 1)))


def test_a_wrong_number_of_column_names_raises_an_error():
    with pytest.raises(ValueError, match=r"`columns` must have 2 names, .* got 1"):
        NeighborsDisplay([[1, 2]], [[[1, 2]]], [[0.5]], columns=["a"])


def test_captions_of_a_regression_are_black():
    images = np.zeros((1, 1, 4, 4))
    words = {"labels": [[1.5]], "predictions": [[1.4]]}
    display = NeighborsDisplay.from_predictions(images[:, 0], images, [[0.5]], **words)
    assert display.ax_[0, 1].title.get_color() == "black"


def test_another_estimator_raises_an_error(images):
    with pytest.raises(TypeError, match="must be a fitted NetworkNeighbors; got Sequential"):
        NeighborsDisplay.from_estimator(*images)


def test_column_names_of_images_raise_an_error():
    images = np.zeros((1, 1, 4, 4))
    with pytest.raises(ValueError, match="`columns` must have 0 names"):
        NeighborsDisplay(images[:, 0], images, [[0.5]], columns=["a"])


def test_tables_have_columns_for_the_given_labels_and_predictions():
    display = NeighborsDisplay(
        [[1, 2]], [[[3, 4]]], [[0.5]], labels=[["a"]], query_predictions=["b"], columns=["x", "y"]
    )
    assert display._format_table(0) == [
        ["similarity", "label", "predicted", "x", "y"],
        ["query", "", "b", "1", "2"],
        ["0.50", "a", "", "3", "4"],
    ]


def make_tables():
    """Return a network of two columns, and a table for it."""
    numbers = np.random.default_rng(0).standard_normal((12, 2)).round(2)
    return nn.Linear(2, 2).double(), pandas.DataFrame(numbers, columns=["a", "b"])


def test_columns_of_queries_in_another_order_are_matched_by_their_name():
    class Columns(nn.Linear):
        def forward(self, a, b):
            return super().forward(torch.cat([a, b], 1))

    _, X = make_tables()
    estimator = NetworkNeighbors(Columns(2, 2).double(), n_neighbors=1).fit(X)
    display = NeighborsDisplay.from_estimator(estimator, X[["b", "a"]].iloc[:2])
    assert display.columns == ["b", "a"]
    assert display.neighbors[:, 0].tolist() == display.queries.tolist()
    assert display.queries[1].tolist() == [f"{value:g}" for value in X[["b", "a"]].iloc[1]]


@pytest.mark.parametrize("convert", [np.asarray, polars.from_pandas], ids=["array", "polars"])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_queries_in_another_form_have_the_columns_of_the_fitted_samples(convert):
    network, X = make_tables()
    estimator = NetworkNeighbors(make_pipeline(FunctionTransformer(np.asarray), network))
    display = NeighborsDisplay.from_estimator(estimator.fit(X), convert(X.iloc[:2]), n_neighbors=1)
    assert display.columns == ["a", "b"]
    assert display.neighbors[:, 0].tolist() == display.queries.tolist()


def test_columns_that_only_some_tables_have_are_empty_in_the_others():
    columns = ["c", "a", "b"]
    tables = Table(["c", "a"], np.array([["1", "2"]])), Table(["a", "b"], np.array([["3", "4"]]))
    names, *cells = align_tables(*tables)
    assert names == columns
    assert [side.tolist() for side in cells] == [[["1", "2", ""]], [["", "3", "4"]]]


def test_lists_of_different_lengths_have_one_cell_each():
    def pad(lists):
        return np.array([[*values, 0, 0][:3] for values in lists], dtype=float)

    X = [[1], [2, 3], [4, 5], [6, 7, 8]]
    network = make_pipeline(FunctionTransformer(pad), nn.Linear(3, 2).double())
    estimator = NetworkNeighbors(network, n_neighbors=4).fit(X)
    display = NeighborsDisplay.from_estimator(estimator, X[1:3])
    assert display.queries.tolist() == [["[2, 3]"], ["[4, 5]"]]
    assert sorted(display.neighbors[0, :, 0]) == ["[1]", "[2, 3]", "[4, 5]", "[6, 7, 8]"]


def test_images_of_different_sizes_are_drawn_in_one_size():
    def average(images):
        return np.array([[image.mean(), image.std()] for image in images])

    X = [np.eye(size) for size in range(2, 8)]
    network = make_pipeline(FunctionTransformer(average), nn.Linear(2, 2).double())
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    display = NeighborsDisplay.from_estimator(estimator, [X[0], X[5]])
    assert display.queries.shape == (2, 7, 7) and display.neighbors.shape == (2, 2, 7, 7)


def test_long_texts_are_wrapped_in_their_cells():
    texts = ["word " * 20, "word " * 100, "short"]
    display = NeighborsDisplay([[texts[0]]], [[[texts[1]], [texts[2]]]], [[0.5, 0.25]])
    _, *cells = [row[-1] for row in display._format_table(0)]
    assert [cell.count("\n") for cell in cells] == [1, 3, 0]
    assert all(len(line) <= 60 for cell in cells for line in cell.split("\n"))
    assert cells[1].endswith(" …") and not cells[0].endswith("…")
    table = display.plot().ax_[0, 0].tables[0].get_celld()
    heights = [table[row, 1].get_height() for row in range(4)]
    np.testing.assert_allclose(np.divide(heights, heights[0]), [1, 2, 4, 1])


def test_any_text_can_be_drawn(tmp_path):
    texts = ["$x^2$ costs $5", "", "\ud800", "\n\n", "x" * 200]
    display = NeighborsDisplay.from_predictions(
        [texts[:1]], [[[text] for text in texts]], [[0.5] * 5]
    )
    display.figure_.savefig(tmp_path / "figure.png")
    assert [row[1] for row in display._format_table(0)[2:5]] == ["$x^2$ costs $5", "", "?"]


def test_wide_tables_are_drawn_with_their_first_columns_and_the_last_one():
    cells = np.arange(40).reshape(2, 20)
    display = NeighborsDisplay(
        cells[:1], cells[None, 1:], [[0.5]], columns=[*"abcdefghijklmnopqrst"]
    )
    heading, query, _ = display._format_table(0)
    assert heading == ["similarity", *"abcdefghijklmn", "…", "t"]
    assert query == ["query", *map(str, range(14)), "…", "19"]
