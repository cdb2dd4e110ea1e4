"""Base of the displays: given axes, grids of axes and errors."""

import numpy as np
import pytest
from matplotlib import pyplot

from sknetsim import NetworkKernel, NetworkNeighbors
from sknetsim.displays import DensityDisplay, NeighborsDisplay, SimilarityMatrixDisplay
from sknetsim.displays._figures import draw_image


def test_displays_are_drawn_into_given_axes(images):
    network, X = images
    figure, axes = pyplot.subplots(1, 2)
    estimator = NetworkNeighbors(network, n_neighbors=2).fit(X)
    first = NeighborsDisplay.from_estimator(estimator, X[:2], ax=axes[0])
    second = SimilarityMatrixDisplay.from_estimator(NetworkKernel(network), X, ax=axes[1])
    assert first.figure_ is second.figure_ is figure and second.ax_ is axes[1]


@pytest.mark.parametrize("ax", [3, np.zeros((2, 2))], ids=["number", "array"])
def test_something_other_than_axes_raises_an_error(ax):
    with pytest.raises(TypeError, match="`ax` must be one matplotlib Axes; got"):
        DensityDisplay.from_predictions([0.0], [0.0], ax=ax)


def test_images_have_a_fixed_scale_and_a_literal_caption():
    axis = pyplot.figure().add_subplot()
    draw_image(axis, np.full((2, 2), 0.5), "$5")
    assert axis.images[0].get_clim() == (0, 1)
    assert axis.get_title() == "$5" and not axis.title.get_parse_math()


def test_displays_can_be_drawn_again():
    display = DensityDisplay.from_predictions([0.0, 1.0], [-1.0, -2.0])
    first = display.figure_
    assert display.plot() is display and display.figure_ is not first
