"""Display of densities: coordinates, order of drawing and errors."""

import numpy as np
import pandas
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from torch import nn

from sknetsim import NetworkDensity
from sknetsim.displays import DensityDisplay
from sknetsim.displays._density import _list_numbers


@pytest.mark.parametrize("width", [1, 2])
def test_samples_with_one_or_two_values_are_their_own_coordinates(width):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    X = np.random.default_rng(0).standard_normal((30, width))
    density = NetworkDensity(network).fit(X)
    display = DensityDisplay.from_estimator(density, X)
    np.testing.assert_allclose(display.log_density, density.score_samples(X))
    np.testing.assert_array_equal(display.coordinates, X.squeeze())


def test_one_coordinate_gives_a_plot_of_points():
    display = DensityDisplay.from_predictions([3.0, 1.0], [-1.0, -2.0])
    (points,) = display.ax_.lines
    assert points.get_xdata().tolist() == [3, 1] and points.get_ydata().tolist() == [-1, -2]


def test_samples_of_low_density_are_drawn_last():
    display = DensityDisplay.from_predictions([[0, 0], [1, 1], [2, 2]], [-3.0, -1.0, -2.0])
    (points,) = display.ax_.collections
    assert points.get_offsets()[:, 0].tolist() == [1, 2, 0]
    assert points.get_array().tolist() == [-1, -2, -3]


def test_densities_of_images_need_coordinates(images):
    network, X = images
    density = NetworkDensity(network).fit(X)
    with pytest.raises(
        ValueError, match=r"`coordinates` must have shape \(12,\) .* got shape \(12, 1, 4, 4\)"
    ):
        DensityDisplay.from_estimator(density, X)
    assert DensityDisplay.from_estimator(density, X, coordinates=np.arange(12)).ax_.lines


@pytest.mark.parametrize("log_density", [1.0, np.zeros((2, 1))], ids=["number", "column"])
def test_densities_of_another_shape_raise_an_error(log_density):
    with pytest.raises(ValueError, match="`log_density` must have shape"):
        DensityDisplay([0, 1], log_density)


def test_another_estimator_raises_an_error(images):
    with pytest.raises(TypeError, match="must be a fitted NetworkDensity; got Sequential"):
        DensityDisplay.from_estimator(*images)


@pytest.mark.parametrize("shape", [(5,), (5, 2)], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_must_be_finite(shape, value):
    coordinates = np.zeros(shape)
    coordinates[3] = value
    with pytest.raises(ValueError, match=r"`coordinates` must be finite.*first for sample 3"):
        DensityDisplay(coordinates, np.zeros(5))


@pytest.mark.parametrize("convert", [pandas.DataFrame, lambda X: [*X], lambda X: {"X": X}])
def test_one_or_two_numbers_in_any_form_are_coordinates(convert):
    X = np.random.default_rng(0).standard_normal((10, 2))
    np.testing.assert_array_equal(_list_numbers(convert(X)), X)
    np.testing.assert_array_equal(_list_numbers(convert(X[:, :1])), X[:, 0])


def test_texts_need_given_coordinates():
    X = ["good film", "bad film", "long film"]
    density = NetworkDensity(make_pipeline(CountVectorizer().fit(X), nn.Linear(4, 1))).fit(X)
    with pytest.raises(ValueError, match=r"`coordinates` must be .* got None\. Pass a column"):
        DensityDisplay.from_estimator(density, X)
    assert DensityDisplay.from_estimator(density, X, coordinates=range(3)).ax_.lines
