"""Display of contributions: bars of layers, maps of positions and errors."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from sknetsim import Contributions, NetworkKernel
from sknetsim.displays import ContributionsDisplay
from sknetsim.displays._figures import BLUE, VERMILION


@pytest.mark.parametrize("pair", [0, 1, -1])
def test_each_layer_has_a_bar_of_its_contribution(images, pair):
    network, X = images
    kernel = NetworkKernel(network)
    display = ContributionsDisplay.from_estimator(kernel, X[:2], X[2:4], pair=pair)
    parts = kernel.contributions(X[:2], X[2:4]).by_layer()
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == [*parts]
    widths = [bar.get_width() for bar in display.ax_.patches]
    np.testing.assert_allclose(widths, [part[pair] for part in parts.values()])
    assert f"{sum(widths):.2f}" in display.ax_.get_xlabel()


def test_bad_estimators_contributions_and_pairs_raise_an_error(images):
    network, X = images
    with pytest.raises(TypeError, match="`estimator` must be a NetworkKernel; got Sequential"):
        ContributionsDisplay.from_estimator(network, X[:1], X[1:2])
    with pytest.raises(TypeError, match="`contributions` must be a Contributions object; got dict"):
        ContributionsDisplay({"0": 1.0})
    contributions = NetworkKernel(network).contributions(X[:1], X[1:2])
    with pytest.raises(
        ValueError, match=r"`pair` must be an integer between -1 and 0 \(1 pairs\); got 1"
    ):
        ContributionsDisplay(contributions, pair=1)


@pytest.fixture
def convolutional():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
    return NetworkKernel(network), torch.rand(4, 1, 4, 4, dtype=torch.float64)


def test_maps_of_positions_are_drawn_over_the_images(convolutional):
    kernel, X = convolutional
    options = {"pair": 1, "layer": "0", "grid": (2, 2)}
    display = ContributionsDisplay.from_estimator(kernel, X[:2], X[2:], **options)
    parts = kernel.contributions(X[:2], X[2:], positions="0").by_position("0")[1]
    for axis, summed, image in zip(display.ax_[0], (1, 0), (X[1, 0], X[3, 0]), strict=True):
        below, above = axis.images
        np.testing.assert_allclose(above.get_array().ravel(), parts.sum(axis=summed))
        low, high = image.min(), image.max()
        np.testing.assert_allclose(below.get_array(), (image - low) / (high - low))


def test_positions_without_a_grid_are_drawn_as_a_matrix(convolutional):
    kernel, X = convolutional
    display = ContributionsDisplay.from_estimator(kernel, X[:2], X[2:], layer="0")
    parts = display.contributions.by_position("0")[0]
    np.testing.assert_array_equal(display.ax_.images[0].get_array(), parts)


def test_maps_are_drawn_without_images(convolutional):
    kernel, X = convolutional
    contributions = kernel.contributions(X[:1], X[1:2], positions="0")
    display = ContributionsDisplay.from_predictions(contributions, layer="0", grid=(1, 4))
    assert [len(axis.images) for axis in display.ax_[0]] == [1, 1]


BAD_GRIDS = {
    "no layer": ({"grid": (2, 2)}, r"`layer` must be .* got None with grid=\(2, 2\)"),
    "other count": (
        {"grid": (2, 3), "layer": "0"},
        r"rows and columns of the 4 positions .* got \(2, 3\)",
    ),
    "one number": ({"grid": (4,), "layer": "0"}, r"`grid` must be .* got \(4,\)"),
    "no positions": ({"grid": (2, 2), "layer": "3"}, "layer.*'3'"),
}


@pytest.mark.parametrize("bad", BAD_GRIDS)
def test_bad_grids_raise_an_error(convolutional, bad):
    kernel, X = convolutional
    contributions = kernel.contributions(X[:1], X[1:2], positions="0")
    options, message = BAD_GRIDS[bad]
    with pytest.raises(ValueError, match=message):
        ContributionsDisplay(contributions, **options)


def test_the_title_and_the_colour_scale_are_those_of_the_contributions(convolutional):
    kernel, X = convolutional
    display = ContributionsDisplay.from_estimator(kernel, X[:2], X[2:], layer="0")
    parts = display.contributions.by_position("0")[0]
    assert display.ax_.get_title() == f"Contribution of 0: {parts.sum():.2f}"
    assert display.ax_.images[0].get_clim() == (-np.abs(parts).max(), np.abs(parts).max())


def test_negative_contributions_have_another_colour():
    contributions = Contributions(
        similarity=np.array([0.5]),
        activities={"a.weight": np.array([[0.75]]), "b.weight": np.array([[-0.25]])},
        layers={"a.weight": "a", "b.weight": "b"},
        positions={},
    )
    display = ContributionsDisplay.from_predictions(contributions)
    colours = [to_hex(bar.get_facecolor()).upper() for bar in display.ax_.patches]
    assert colours == [BLUE, VERMILION]


def test_maps_of_positions_are_drawn_over_images_of_different_sizes(convolutional):
    kernel, X = convolutional

    def crop(images):
        return np.stack([image[:4, :4] for image in images])[:, None]

    steps = make_pipeline(FunctionTransformer(crop), kernel.estimator)
    pair = [X[0, 0].numpy()], [np.pad(X[1, 0].numpy(), (0, 2))]
    options = {"layer": "0", "grid": (2, 2)}
    display = ContributionsDisplay.from_estimator(NetworkKernel(steps), *pair, **options)
    assert display.images.shape == (2, 6, 6)
    expected = kernel.contributions(X[:1], X[1:2]).similarity
    np.testing.assert_allclose(display.contributions.similarity, expected)


def test_maps_of_positions_of_texts_are_drawn_without_images():
    def encode(texts):
        return np.array([[[ord(letter) / 99 for letter in text]] for text in texts])

    network = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)).double()
    kernel = NetworkKernel(make_pipeline(FunctionTransformer(encode), network))
    options = {"layer": "0", "grid": (2, 2)}
    display = ContributionsDisplay.from_estimator(kernel, ["good"], ["film"], **options)
    assert display.images is None and [len(axis.images) for axis in display.ax_[0]] == [1, 1]
