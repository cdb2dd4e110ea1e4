"""Display of denoised labels: labels, predictions, remaining noise and errors."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import LabelDenoiser
from sknetsim.displays import DenoisingDisplay


@pytest.fixture
def denoiser():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((40, 2))
    y = X + generator.normal(scale=0.1, size=X.shape)
    return LabelDenoiser(nn.Linear(2, 2).double(), method="power").fit(X, y), X, y


@pytest.mark.parametrize("has_coordinate", [True, False])
def test_labels_smoothed_labels_and_predictions_are_drawn(denoiser, has_coordinate):
    estimator, X, y = denoiser
    coordinate = X[:, 0] if has_coordinate else None
    display = DenoisingDisplay.from_estimator(estimator, X, y, coordinate=coordinate, column=1)
    denoising, (upper, lower) = estimator.denoising(X), display.ax_[:, 0]
    drawn = {line.get_label(): line.get_ydata() for line in upper.lines}
    predictions = estimator.estimator_(torch.as_tensor(X)).detach().numpy()[:, 1]
    np.testing.assert_array_equal(drawn["label"], y[:, 1])
    np.testing.assert_array_equal(drawn["smoothed label"], denoising.labels[:, 1])
    np.testing.assert_allclose(drawn["prediction"], predictions)
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), denoising.deviation_factor)
    np.testing.assert_allclose(
        lower.lines[0].get_xdata(), X[:, 0] if has_coordinate else predictions
    )


def test_classes_are_drawn_as_indicators():
    generator = np.random.default_rng(0)
    X, y = generator.standard_normal((30, 2)).astype("float32"), np.arange(30) % 3
    estimator = LabelDenoiser(nn.Linear(2, 3)).fit(X, y)
    display = DenoisingDisplay.from_estimator(estimator, X, y, column=2)
    np.testing.assert_array_equal(display.labels, y == 2)


def test_a_second_column_of_a_single_one_raises_an_error(denoiser):
    _, X, y = denoiser
    denoising = LabelDenoiser(nn.Linear(2, 1).double()).fit(X, y[:, 0]).denoising()
    with pytest.raises(ValueError, match=r"`column` must be 0 \(1 column of labels\); got 1"):
        DenoisingDisplay(y[:, 0], denoising, column=1)


def test_bad_estimators_labels_columns_and_coordinates_raise_an_error(denoiser):
    estimator, X, y = denoiser
    denoising = estimator.denoising()
    with pytest.raises(TypeError, match="must be a fitted LabelDenoiser; got Linear"):
        DenoisingDisplay.from_estimator(estimator.estimator_, X, y)
    with pytest.raises(TypeError, match="`denoising` must be a Denoising object; got ndarray"):
        DenoisingDisplay(y, denoising.labels)
    with pytest.raises(
        ValueError,
        match=r"`column` must be an integer between 0 and 1 \(2 columns of labels\); got 2",
    ):
        DenoisingDisplay(y, denoising, column=2)
    with pytest.raises(ValueError, match=r"`labels` must have shape \(40, 2\), .* got \(39, 2\)"):
        DenoisingDisplay(y[:39], denoising)
    with pytest.raises(ValueError, match=r"`coordinate` must have shape \(40,\), .* got \(40, 2\)"):
        DenoisingDisplay(y, denoising, coordinate=X)


def test_the_axis_is_named_after_the_position_of_the_samples(denoiser):
    estimator, X, y = denoiser
    for coordinate, name in ((X[:, 0], "Coordinate"), (None, "Prediction")):
        display = DenoisingDisplay.from_estimator(estimator, X, y, coordinate=coordinate)
        assert display.ax_[1, 0].get_xlabel() == name
