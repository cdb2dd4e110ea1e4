"""Displays: what is drawn, and what is refused."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch import nn

from sknetsim import NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim.displays import (
    ContributionsDisplay,
    DensityDisplay,
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
        estimator, X[:2], labels=np.arange(12), predictions=["a", "$b"]
    )
    gram, (_, indices) = NetworkKernel(network)(X), estimator.kneighbors(X[:2])
    assert [axis.get_title() for axis in display.ax_[:, 0]] == ["says a", "says $b"]
    for row in range(2):
        for place in range(3):
            index = indices[row, place]
            axis = display.ax_[row, place + 1]
            assert axis.get_title() == f"{gram[row, index]:.2f}\n{index}"
            low, high = X[indices].min(), X[indices].max()
            expected = (X[index, 0] - low) / (high - low)
            np.testing.assert_allclose(axis.images[0].get_array(), expected)


def test_flat_rows_are_drawn_in_their_shape(data):
    _, X = data
    rows = X.flatten(1).numpy()
    network = nn.Linear(16, 2).double()
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(rows)
    display = NeighborsDisplay.from_estimator(estimator, rows[:1], image_shape=(4, 4))
    assert display.queries.shape == (1, 4, 4) and display.ax_.shape == (1, 3)
    with pytest.raises(ValueError, match=r"image_shape is None and X has rows of shape \(16,\)"):
        NeighborsDisplay.from_estimator(estimator, rows[:1])


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
    with pytest.raises(ValueError, match="neighbors has 2 rows and queries 1"):
        NeighborsDisplay(images[:1, 0], images, np.zeros((2, 3)))


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
