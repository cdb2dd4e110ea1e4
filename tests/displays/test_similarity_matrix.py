"""Display of similarity matrices: order, labels and errors."""

import numpy as np
import pytest

from sknetsim import NetworkKernel
from sknetsim.displays import SimilarityMatrixDisplay


def test_samples_of_a_cluster_are_adjacent():
    groups = np.array([0, 1, 0, 1, 0, 1])
    gram = np.where(groups[:, None] == groups, 1.0, -0.2)
    display = SimilarityMatrixDisplay.from_predictions(gram, labels=groups)
    assert np.abs(np.diff(groups[display.order])).sum() == 1
    drawn = display.ax_.images[0].get_array()
    np.testing.assert_array_equal(drawn, gram[np.ix_(display.order, display.order)])
    legend = display.ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1"]


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_samples_keep_their_order(count):
    assert SimilarityMatrixDisplay.from_predictions(np.eye(count)).order.tolist() == [*range(count)]


BAD = {
    "not square": ({"gram": np.zeros((2, 3))}, r"`gram` must have shape .* got \(2, 3\)"),
    "empty": ({"gram": np.zeros((0, 0))}, r"`gram` must have shape .* got \(0, 0\)"),
    "not normalised": ({"gram": 2 * np.eye(2)}, r"must be in \[-1, 1\]; got values from 0 to 2"),
    "not finite": ({"gram": np.full((2, 2), np.nan)}, "values from nan to nan"),
    "other labels": (
        {"gram": np.eye(2), "labels": [1]},
        r"`labels` must have shape \(2,\), .* got \(1,\)",
    ),
    "many labels": (
        {"gram": np.eye(11), "labels": range(11)},
        "`labels` must have at most 10 different values, .* got 11",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_matrices_and_labels_raise_an_error(bad):
    settings, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        SimilarityMatrixDisplay.from_predictions(**settings)


def test_the_matrix_is_that_of_the_kernel(images):
    network, X = images
    kernel = NetworkKernel(network)
    display = SimilarityMatrixDisplay.from_estimator(kernel, X, labels=[0, 1] * 6)
    np.testing.assert_array_equal(display.gram, kernel(X))
    assert sorted(display.order) == list(range(12))


def test_another_estimator_raises_an_error(images):
    with pytest.raises(TypeError, match=r"`estimator` must be a NetworkKernel .* got Sequential"):
        SimilarityMatrixDisplay.from_estimator(*images)


def test_labels_in_the_legend_are_not_parsed_as_formulas():
    display = SimilarityMatrixDisplay.from_predictions(np.eye(2), labels=["$a", "$b$"])
    (first, *_) = display.ax_.get_legend().get_texts()
    assert first.get_text() == "$a" and not first.get_parse_math()
