"""Display of influential samples: images, tables, captions, labels and errors."""

import numpy as np
import pandas
import pytest
import skorch
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from sknetsim import TrainingInfluence
from sknetsim.displays import InfluenceDisplay

LABELS = np.arange(12) % 3


@pytest.fixture
def fitted(images):
    """Return an estimator fitted on images, and the images."""
    network, X = images
    return TrainingInfluence(network).fit(X, LABELS), X


def list_titles(axes):
    return [axis.get_title() for axis in axes]


def format_titles(values, indices, labels):
    return [f"{value:+.2g}\n{labels[i]}" for value, i in zip(values, indices, strict=True)]


def test_helpful_and_harmful_samples_have_their_influence_and_label(fitted):
    estimator, X = fitted
    display = InfluenceDisplay.from_estimator(estimator, X[:2], n_samples=2)
    top = estimator.top(X[:2], 2)
    predicted = estimator.estimator_(X).argmax(dim=1)
    for row in range(2):
        titles = list_titles(display.ax_[row])
        assert titles[0] == f"query\npredicted {predicted[row]}"
        assert titles[1:3] == format_titles(top.helpful_influence[row], top.helpful[row], LABELS)
        assert titles[3:] == format_titles(top.harmful_influence[row], top.harmful[row], LABELS)
    indices = np.concatenate([top.helpful, top.harmful], axis=1)
    low, high = X[indices].min(), X[indices].max()
    expected = ((X[indices, 0] - low) / (high - low)).numpy()
    np.testing.assert_allclose(display.samples, expected)


def test_frames_are_blue_for_a_positive_influence_and_vermilion_for_a_negative_one():
    images = np.zeros((1, 2, 4, 4))
    display = InfluenceDisplay.from_predictions(images[:, 0], images, [[0.5, -0.25]])
    frames = [axis.spines["top"].get_edgecolor() for axis in display.ax_[0, 1:]]
    blue, vermilion = (0, 0x72 / 255, 0xB2 / 255, 1), (0xD5 / 255, 0x5E / 255, 0, 1)
    np.testing.assert_allclose(frames, [blue, vermilion])


def test_the_margin_is_measured_at_the_given_labels(fitted):
    estimator, X = fitted
    y = (estimator.estimator_(X[:2]).argmax(dim=1) + 1) % 3
    display = InfluenceDisplay.from_estimator(estimator, X[:2], y, n_samples=1)
    expected = estimator.top(X[:2], 1, y).helpful_influence
    np.testing.assert_array_equal(display.influence[:, :1], expected)
    assert display.query_labels.tolist() == y.tolist()
    assert [axis.title.get_color() for axis in display.ax_[:, 0]] == ["#D55E00"] * 2


def test_shown_labels_of_queries_do_not_change_the_influence(fitted):
    estimator, X = fitted
    display = InfluenceDisplay.from_estimator(estimator, X[:2], query_labels=[2, 2], n_samples=1)
    expected = estimator.top(X[:2], 1).helpful_influence
    np.testing.assert_array_equal(display.influence[:, :1], expected)


def test_names_are_shown_without_predictions_in_an_unknown_order(fitted):
    estimator, X = fitted
    names = np.array(["cat", "dog", "fox"])
    display = InfluenceDisplay.from_estimator(
        estimator, X[:1], n_samples=1, labels=names[LABELS], query_labels=["dog"]
    )
    helpful = estimator.top(X[:1], 1).helpful[0, 0]
    assert list_titles(display.ax_[0, :2])[0] == "query\ndog"
    assert display.labels[0, 0] == names[LABELS[helpful]]


def test_labels_of_false_and_true_are_compared_with_predictions(images):
    _, X = images
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    y = np.arange(12) % 2 == 1
    estimator = TrainingInfluence(network).fit(X, y)
    display = InfluenceDisplay.from_estimator(estimator, X[:3], y[:3], n_samples=1)
    predicted = network(X[:3]).argmax(dim=1).tolist()
    assert [str(value) for value in display.query_predictions] == [f"{p == 1}" for p in predicted]


def test_rows_of_a_table_are_drawn_below_their_query():
    X = pandas.DataFrame({"a": np.linspace(-1, 1, 12), "b": [*"xyz"] * 4})
    pipeline = make_pipeline(
        FunctionTransformer(lambda table: table[["a"]].to_numpy()), nn.Linear(1, 3).double()
    )
    estimator = TrainingInfluence(pipeline).fit(X, LABELS)
    display = InfluenceDisplay.from_estimator(estimator, X[:1], [2], n_samples=1)
    top = estimator.top(X[:1], 1, [2])
    heading, query, helpful, harmful = display._format_table(0)
    assert heading == ["influence", "label", "predicted", "a", "b"]
    assert query[:2] == ["query", "2"] and query[3:] == ["-1", "x"]
    for row, values, (index,) in (
        (helpful, top.helpful_influence, top.helpful[0]),
        (harmful, top.harmful_influence, top.harmful[0]),
    ):
        assert row[:3] == [f"{values[0, 0]:+.2g}", str(LABELS[index]), ""]
        assert row[4] == X["b"][index]


def test_predictions_of_a_regression_are_black():
    X = np.random.default_rng(0).normal(size=(12, 16))
    y = X[:, :2] * 10
    estimator = TrainingInfluence(nn.Linear(16, 2).double()).fit(X, y)
    display = InfluenceDisplay.from_estimator(estimator, X[:1], y[:1], image_shape=(4, 4))
    assert display.ax_[0, 0].title.get_color() == "black"
    assert display.query_predictions.shape == (1, 2)


def test_several_labels_are_separated_by_commas_and_wrapped():
    torch.manual_seed(0)
    X, y = torch.randn(12, 16), (np.arange(36).reshape(12, 3) % 2).astype("float32")
    net = skorch.NeuralNet(nn.Linear(16, 3), criterion=nn.BCEWithLogitsLoss, device="cpu")
    estimator = TrainingInfluence(net.initialize()).fit(X, y)
    display = InfluenceDisplay.from_estimator(
        estimator, X[:1], y[:1], query_predictions=[[1, 1, 1]], image_shape=(4, 4)
    )
    assert display.ax_[0, 0].get_title() == "query\n0, 1, 0, predicted\n1, 1, 1"
    assert display.ax_[0, 0].title.get_color() == "#D55E00"


BAD = {
    "X": ({"X": torch.zeros(2, 1, 3, 4)}, r"shape"),
    "y": ({"y": [0]}, "inconsistent numbers of samples"),
    "class": ({"y": [0, 7]}, "`y` must contain only the classes 0, 1, 2; got 7"),
    "number": ({"n_samples": 13}, "`n_samples` must be an integer between 1 and 12"),
    "labels": ({"labels": [1, 2]}, r"`labels` must have shape \(12,\), .* got \(2,\)"),
    "query labels": ({"query_labels": [1]}, r"`query_labels` must have shape \(2,\), .* \(1,\)"),
    "predictions": ({"query_predictions": 1}, r"`query_predictions` must have shape \(2,\), .* \("),
    "shape": ({"image_shape": (3, 4)}, r"`image_shape` must be .*; got \(3, 4\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_unsuitable_parameters_raise_an_error(name, fitted):
    estimator, X = fitted
    settings, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        InfluenceDisplay.from_estimator(estimator, **{"X": X[:2], **settings})


def test_another_estimator_raises_an_error(images):
    with pytest.raises(TypeError, match="must be a fitted TrainingInfluence; got Sequential"):
        InfluenceDisplay.from_estimator(*images)


def test_inconsistent_shapes_raise_an_error():
    images = np.zeros((2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"`influence` must have shape .*; got \(2, 2\)"):
        InfluenceDisplay(images[:, 0], images, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"`samples` must .* got \(2, 3, 4, 4\) with queries"):
        InfluenceDisplay(images[:1, 0], images, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="`influence` must contain numbers; got dtype <U1"):
        InfluenceDisplay(images[:, 0], images, [["a"] * 3] * 2)
