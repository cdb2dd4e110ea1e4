"""Displays: what is drawn, and what is refused."""

import matplotlib as mpl
import numpy as np
import pandas
import pytest
import torch
from matplotlib import pyplot
from torch import nn

from sknetsim import (
    ActiveLearningCurve,
    ActiveLearningSampler,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
)
from sknetsim.displays import (
    ContributionsDisplay,
    DenoisingDisplay,
    DensityDisplay,
    LearningCurveDisplay,
    NeighborsDisplay,
    SimilarityMatrixDisplay,
)

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.fixture
def data():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return network, torch.rand(12, 1, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_neighbours_stand_beside_their_query_with_their_similarity(data, distance):
    network, X = data
    estimator = NetworkNeighbors(network, n_neighbors=3, distance=distance).fit(X)
    display = NeighborsDisplay.from_estimator(
        estimator, X[:2], labels=np.arange(12), query_predictions=["a", "$b"]
    )
    gram, (_, indices) = NetworkKernel(network)(X), estimator.kneighbors(X[:2])
    titles = [axis.get_title() for axis in display.ax_[:, 0]]
    assert titles == ["query\nsays a", "query\nsays $b"]
    for row in range(2):
        for place in range(3):
            index = indices[row, place]
            axis = display.ax_[row, place + 1]
            assert axis.get_title() == f"{gram[row, index]:.2f}\n{index}"
            low, high = X[indices].min(), X[indices].max()
            expected = (X[index, 0] - low) / (high - low)
            np.testing.assert_allclose(axis.images[0].get_array(), expected)


def test_what_the_network_contradicts_is_told_by_its_colour():
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


def test_flat_rows_are_drawn_in_their_shape(data):
    _, X = data
    rows = X.flatten(1).numpy()
    network = nn.Linear(16, 2).double()
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(rows)
    display = NeighborsDisplay.from_estimator(estimator, rows[:1], image_shape=(4, 4))
    assert display.queries.shape == (1, 4, 4) and display.ax_.shape == (1, 3)
    with pytest.raises(
        ValueError, match=r"image_shape is \(3, 4\) and X has rows of shape \(16,\)"
    ):
        NeighborsDisplay.from_estimator(estimator, rows[:1], image_shape=(3, 4))


@pytest.mark.parametrize("named", [True, False])
def test_rows_of_a_table_stand_below_their_query(named):
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


def test_colours_are_kept():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    X = torch.rand(5, 3, 4, 4)
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    assert NeighborsDisplay.from_estimator(estimator, X[:1]).queries.shape == (1, 4, 4, 3)


def test_displays_take_the_place_of_axes(data):
    network, X = data
    figure, axes = pyplot.subplots(1, 2)
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    first = NeighborsDisplay.from_estimator(estimator, X[:2], ax=axes[0])
    second = SimilarityMatrixDisplay.from_estimator(NetworkKernel(network), X, ax=axes[1])
    assert first.figure_ is second.figure_ is figure and second.ax_ is axes[1]


def test_clusters_stand_side_by_side():
    groups = np.array([0, 1, 0, 1, 0, 1])
    gram = np.where(groups[:, None] == groups, 1.0, -0.2)
    display = SimilarityMatrixDisplay.from_predictions(gram, labels=groups)
    assert np.abs(np.diff(groups[display.order])).sum() == 1
    drawn = display.ax_.images[0].get_array()
    np.testing.assert_array_equal(drawn, gram[np.ix_(display.order, display.order)])
    legend = display.ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1"]


@pytest.mark.parametrize("count", [1, 2])
def test_few_samples_are_a_matrix_too(count):
    assert SimilarityMatrixDisplay.from_predictions(np.eye(count)).order.tolist() == [*range(count)]


BAD = {
    "not square": ({"gram": np.zeros((2, 3))}, r"gram has shape \(2, 3\)"),
    "empty": ({"gram": np.zeros((0, 0))}, r"gram has shape \(0, 0\)"),
    "not normalised": ({"gram": 2 * np.eye(2)}, "values from 0 to 2"),
    "not finite": ({"gram": np.full((2, 2), np.nan)}, "values from nan to nan"),
    "other labels": ({"gram": np.eye(2), "labels": [1]}, r"labels has shape \(1,\)"),
    "many labels": ({"gram": np.eye(11), "labels": range(11)}, "labels has 11 different values"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_matrix_of_similarities_is_refused(bad):
    settings, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        SimilarityMatrixDisplay.from_predictions(**settings)


def test_other_estimators_are_refused(data):
    network, X = data
    with pytest.raises(TypeError, match="estimator is a Sequential; allowed are NetworkKernel"):
        SimilarityMatrixDisplay.from_estimator(network, X)
    with pytest.raises(TypeError, match="allowed is a fitted NetworkNeighbors"):
        NeighborsDisplay.from_estimator(network, X)


def test_other_shapes_of_neighbours_are_refused():
    images = np.zeros((2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"similarities has shape \(2, 2\)"):
        NeighborsDisplay(images[:, 0], images, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"neighbors has shape \(2, 3, 4, 4\) and queries \(1, 4"):
        NeighborsDisplay(images[:1, 0], images, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"labels has shape \(3,\); .* of shape \(2, 3\)"):
        NeighborsDisplay(images[:, 0], images, np.zeros((2, 3)), labels=[1, 2, 3])


def test_words_are_one_for_each_fitted_row(data):
    network, X = data
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    for name in ("labels", "predictions"):
        with pytest.raises(ValueError, match=rf"{name} has shape \(2,\); .* of shape \(12,\)"):
            NeighborsDisplay.from_estimator(estimator, X[:1], **{name: [0, 1]})


def test_axes_without_a_grid_cannot_be_divided(data):
    network, X = data
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    with pytest.raises(ValueError, match="ax has a place of its own"):
        NeighborsDisplay.from_estimator(estimator, X[:1], ax=pyplot.figure().add_axes((0, 0, 1, 1)))


@pytest.mark.parametrize("width", [1, 2])
def test_densities_are_drawn_at_the_rows_own_numbers(width):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    X = np.random.default_rng(0).standard_normal((30, width))
    density = NetworkDensity(network).fit(X)
    display = DensityDisplay.from_estimator(density, X)
    np.testing.assert_allclose(display.log_density, density.score_samples(X))
    np.testing.assert_array_equal(display.coordinates, X.squeeze())


def test_a_line_of_points_is_drawn_as_it_is():
    display = DensityDisplay.from_predictions([3.0, 1.0], [-1.0, -2.0])
    (points,) = display.ax_.lines
    assert points.get_xdata().tolist() == [3, 1] and points.get_ydata().tolist() == [-1, -2]


def test_the_least_dense_are_drawn_last():
    display = DensityDisplay.from_predictions([[0, 0], [1, 1], [2, 2]], [-3.0, -1.0, -2.0])
    (points,) = display.ax_.collections
    assert points.get_offsets()[:, 0].tolist() == [1, 2, 0]
    assert points.get_array().tolist() == [-1, -2, -3]


def test_densities_of_images_need_coordinates(data):
    network, X = data
    density = NetworkDensity(network).fit(X)
    with pytest.raises(ValueError, match=r"coordinates has shape \(12, 1, 4, 4\)"):
        DensityDisplay.from_estimator(density, X)
    assert DensityDisplay.from_estimator(density, X, coordinates=np.arange(12)).ax_.lines


@pytest.mark.parametrize("log_density", [1.0, np.zeros((2, 1))], ids=["number", "column"])
def test_other_shapes_of_densities_are_refused(log_density):
    with pytest.raises(ValueError, match="log_density has shape"):
        DensityDisplay([0, 1], log_density)


def test_only_densities_have_one(data):
    with pytest.raises(TypeError, match="allowed is a fitted NetworkDensity"):
        DensityDisplay.from_estimator(*data)


@pytest.mark.parametrize("pair", [0, 1, -1])
def test_each_layer_has_a_bar_of_what_it_adds(data, pair):
    network, X = data
    kernel = NetworkKernel(network)
    display = ContributionsDisplay.from_estimator(kernel, X[:2], X[2:4], pair=pair)
    parts = kernel.contributions(X[:2], X[2:4]).by_layer()
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == [*parts]
    widths = [bar.get_width() for bar in display.ax_.patches]
    np.testing.assert_allclose(widths, [part[pair] for part in parts.values()])
    assert f"{sum(widths):.2f}" in display.ax_.get_xlabel()


def test_only_contributions_of_a_pair_are_drawn(data):
    network, X = data
    with pytest.raises(TypeError, match="allowed is a NetworkKernel"):
        ContributionsDisplay.from_estimator(network, X[:1], X[1:2])
    with pytest.raises(TypeError, match=r"allowed is what NetworkKernel\.contributions gives"):
        ContributionsDisplay({"0": 1.0})
    found = NetworkKernel(network).contributions(X[:1], X[1:2])
    with pytest.raises(ValueError, match="pair is 1; allowed are the numbers of the 1 pairs"):
        ContributionsDisplay(found, pair=1)


@pytest.fixture
def convolutional():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
    return NetworkKernel(network), torch.rand(4, 1, 4, 4, dtype=torch.float64)


def test_places_of_both_inputs_are_drawn_over_them(convolutional):
    kernel, X = convolutional
    options = {"pair": 1, "layer": "0", "grid": (2, 2)}
    display = ContributionsDisplay.from_estimator(kernel, X[:2], X[2:], **options)
    parts = kernel.contributions(X[:2], X[2:], positions="0").by_position("0")[1]
    for axis, summed, image in zip(display.ax_[0], (1, 0), (X[1, 0], X[3, 0]), strict=True):
        below, above = axis.images
        np.testing.assert_allclose(above.get_array().ravel(), parts.sum(axis=summed))
        low, high = image.min(), image.max()
        np.testing.assert_allclose(below.get_array(), (image - low) / (high - low))


def test_positions_without_a_grid_are_a_matrix(convolutional):
    kernel, X = convolutional
    display = ContributionsDisplay.from_estimator(kernel, X[:2], X[2:], layer="0")
    parts = display.contributions.by_position("0")[0]
    np.testing.assert_array_equal(display.ax_.images[0].get_array(), parts)


def test_maps_without_images_are_drawn_alone(convolutional):
    kernel, X = convolutional
    found = kernel.contributions(X[:1], X[1:2], positions="0")
    display = ContributionsDisplay.from_predictions(found, layer="0", grid=(1, 4))
    assert [len(axis.images) for axis in display.ax_[0]] == [1, 1]


BAD_GRIDS = {
    "no layer": ({"grid": (2, 2)}, r"grid is \(2, 2\) and layer None"),
    "other count": ({"grid": (2, 3), "layer": "0"}, "rows and columns of the 4 positions"),
    "one number": ({"grid": (4,), "layer": "0"}, r"grid is \(4,\)"),
    "no positions": ({"grid": (2, 2), "layer": "3"}, "layer is '3'; allowed are layers whose"),
}


@pytest.mark.parametrize("bad", BAD_GRIDS)
def test_other_grids_are_refused(convolutional, bad):
    kernel, X = convolutional
    found = kernel.contributions(X[:1], X[1:2], positions="0")
    options, message = BAD_GRIDS[bad]
    with pytest.raises(ValueError, match=message):
        ContributionsDisplay(found, **options)


@pytest.fixture
def denoiser():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((40, 2))
    y = X + generator.normal(scale=0.1, size=X.shape)
    return LabelDenoiser(nn.Linear(2, 2).double(), method="power").fit(X, y), X, y


@pytest.mark.parametrize("placed", [True, False])
def test_labels_are_drawn_with_what_became_of_them(denoiser, placed):
    estimator, X, y = denoiser
    coordinate = X[:, 0] if placed else None
    display = DenoisingDisplay.from_estimator(estimator, X, y, coordinate=coordinate, column=1)
    found, (upper, lower) = estimator.denoising(X), display.ax_[:, 0]
    drawn = {line.get_label(): line.get_ydata() for line in upper.lines}
    predictions = estimator.estimator_(torch.as_tensor(X)).detach().numpy()[:, 1]
    np.testing.assert_array_equal(drawn["label"], y[:, 1])
    np.testing.assert_array_equal(drawn["label, smoothed"], found.labels[:, 1])
    np.testing.assert_allclose(drawn["prediction"], predictions)
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), found.deviation_factor)
    np.testing.assert_allclose(lower.lines[0].get_xdata(), X[:, 0] if placed else predictions)


def test_of_classes_an_indicator_is_drawn():
    generator = np.random.default_rng(0)
    X, y = generator.standard_normal((30, 2)).astype("float32"), np.arange(30) % 3
    estimator = LabelDenoiser(nn.Linear(2, 3)).fit(X, y)
    display = DenoisingDisplay.from_estimator(estimator, X, y, column=2)
    np.testing.assert_array_equal(display.labels, y == 2)


def test_other_labels_of_denoising_are_refused(denoiser):
    estimator, X, y = denoiser
    found = estimator.denoising()
    with pytest.raises(TypeError, match="allowed is a fitted LabelDenoiser"):
        DenoisingDisplay.from_estimator(estimator.estimator_, X, y)
    with pytest.raises(TypeError, match="denoising is a ndarray"):
        DenoisingDisplay(y, found.labels)
    with pytest.raises(ValueError, match="column is 2; allowed are the numbers of the 2 columns"):
        DenoisingDisplay(y, found, column=2)
    with pytest.raises(ValueError, match=r"labels has shape \(39, 2\); allowed is \(40, 2\)"):
        DenoisingDisplay(y[:39], found)
    with pytest.raises(ValueError, match=r"coordinate has shape \(40, 2\); allowed is \(40,\)"):
        DenoisingDisplay(y, found, coordinate=X)


def curve(scores):
    rounds = len(scores[0])
    return ActiveLearningCurve(
        n_labelled=10 * np.arange(1, rounds + 1),
        scores=np.array(scores),
        query_times=np.zeros((len(scores), rounds - 1)),
        indices=np.zeros((len(scores), 10 * rounds), dtype=int),
        seeds=tuple(range(len(scores))),
    )


def test_curves_of_samplers_are_drawn_side_by_side():
    curves = {"first": curve([[1.0, 2], [3, 4]]), "second": curve([[1.0, 2], [3, 6]])}
    display = LearningCurveDisplay.from_predictions(curves)
    assert [line.get_ydata().tolist() for line in display.ax_.lines] == [[2, 3], [2, 4]]
    assert [line.get_xdata().tolist() for line in display.ax_.lines] == [[10, 20]] * 2
    band = display.ax_.collections[0].get_paths()[0].vertices
    assert set(band[:, 1]) == {1, 2, 3, 4}
    legend = display.ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["first", "second"]


def test_many_curves_differ_by_colour_or_marker():
    display = LearningCurveDisplay.from_predictions({str(n): curve([[1.0, n]]) for n in range(20)})
    assert len({(line.get_color(), line.get_marker()) for line in display.ax_.lines}) == 20


@pytest.mark.parametrize("curves", [{}, [1], {"random": 1.0}], ids=["none", "list", "number"])
def test_what_is_no_curve_is_refused(curves):
    with pytest.raises(TypeError, match="allowed is"):
        LearningCurveDisplay(curves)


def test_samplers_have_names():
    with pytest.raises(TypeError, match="samplers is ActiveLearningSampler"):
        LearningCurveDisplay.from_estimator(None, ActiveLearningSampler(), [[0.0]], [0.0])


@pytest.mark.parametrize("ax", [3, np.zeros((2, 2))], ids=["number", "array"])
def test_what_are_no_axes_are_refused(ax):
    with pytest.raises(TypeError, match="allowed is one matplotlib Axes"):
        DensityDisplay.from_predictions([0.0], [0.0], ax=ax)


def test_other_names_of_columns_are_refused():
    with pytest.raises(ValueError, match=r"columns has 1 names; .* of which there are 2"):
        NeighborsDisplay([[1, 2]], [[[1, 2]]], [[0.5]], columns=["a"])


def test_numbers_that_are_predicted_contradict_nothing():
    images = np.zeros((1, 1, 4, 4))
    words = {"labels": [[1.5]], "predictions": [[1.4]]}
    display = NeighborsDisplay.from_predictions(images[:, 0], images, [[0.5]], **words)
    assert display.ax_[0, 1].title.get_color() == "black"


def test_words_in_a_legend_are_no_mathematics():
    displays = [
        LearningCurveDisplay.from_predictions({"$a": curve([[1.0, 2]])}),
        SimilarityMatrixDisplay.from_predictions(np.eye(2), labels=["$a", "$b$"]),
    ]
    for display in displays:
        (first, *_) = display.ax_.get_legend().get_texts()
        assert first.get_text() == "$a" and not first.get_parse_math()
