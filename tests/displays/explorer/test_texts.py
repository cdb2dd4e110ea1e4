"""Labels and predictions as texts, and the mismatches between them."""

import numpy as np
import pytest
import torch
from skorch import NeuralNet
from torch import nn

from sknetsim import LabelDenoiser, explore
from sknetsim.displays.explorer._texts import format_texts

from .pages import read_data


def test_a_regression_has_no_mismatches(tmp_path):
    X = np.random.default_rng(0).random((12, 2))
    data = read_data(explore(nn.Linear(2, 1).double(), X, X[:, 0], tmp_path / "page.html"))
    assert not any(data["mismatches"])
    assert data["texts"]["label"][0] == f"{X[0, 0]:.4g}"


CLASSES = {
    "bool": lambda y: y.astype(bool),
    "column": lambda y: y[:, None],
    "float": lambda y: y.astype(float),
    "objects": lambda y: y.astype(object),
}


@pytest.mark.parametrize("form", CLASSES)
def test_labels_in_any_form_differ_from_other_predicted_classes(form, tmp_path):
    X, y = torch.randn(40, 2, dtype=torch.float64), np.arange(40) % 2
    network = nn.Linear(2, 2).double()
    given = CLASSES[form](y)
    data = read_data(explore(network, X, given, tmp_path / "page.html"))
    predicted = network(X).argmax(dim=1).numpy()
    assert data["mismatches"] == (predicted != y).tolist()
    names = dict(zip(y, np.ravel(given).tolist(), strict=True))
    expected = [str(names[code]).removesuffix(".0") for code in predicted]
    assert data["texts"]["prediction"] == expected


def make_names(count):
    """Return samples, numbers of their classes, and names in another order than the numbers."""
    return torch.randn(count, 2, dtype=torch.float64), np.arange(count) % 2, ["yes", "no"]


@pytest.mark.parametrize("make", [np.array, list, lambda names: np.array(names, dtype=object)])
def test_names_are_shown_with_the_quality_but_without_predictions_in_an_unknown_order(
    make, tmp_path
):
    X, y, names = make_names(40)
    network = nn.Linear(2, 2).double()
    data = read_data(explore(network, X, make([names[k] for k in y]), tmp_path / "page.html"))
    assert data["texts"]["label"] == [names[k] for k in y]
    assert "prediction" not in data["texts"]
    assert not any(data["mismatches"])
    expected = read_data(explore(network, X, y, tmp_path / "page.html"))
    assert data["scores"]["quality"] == expected["scores"]["quality"]


def test_the_default_network_predicts_names(tmp_path):
    X, _, names = make_names(40)
    labels = [names[int(k)] for k in X[:, 0] > 0]
    data = read_data(explore(None, X.numpy(), labels, tmp_path / "page.html", random_state=0))
    agree = np.array(data["texts"]["prediction"]) == np.array(labels)
    assert agree.mean() > 0.8
    assert data["mismatches"] == (~agree).tolist()


def test_names_for_a_network_with_one_output_raise_an_error(tmp_path):
    X, y, names = make_names(40)
    with pytest.raises(ValueError, match=r"`y` must contain numbers, .* got dtype <U3\. Encode"):
        explore(nn.Linear(2, 1).double(), X, [names[k] for k in y], tmp_path / "page.html")


@pytest.mark.parametrize("dtype", [float, bool, int])
def test_several_labels_differ_if_one_of_them_differs(dtype, tmp_path):
    X = torch.randn(40, 2, dtype=torch.float64)
    y = np.random.default_rng(0).random((40, 3)) > 0.5
    module = nn.Linear(2, 3).double()
    net = NeuralNet(module, criterion=nn.BCEWithLogitsLoss).initialize()
    data = read_data(explore(net, X, y.astype(dtype), tmp_path / "page.html"))
    predicted = module(X).detach().numpy() > 0
    assert data["mismatches"] == (predicted != y).any(axis=1).tolist()
    expected = [", ".join(f"{dtype(p)}".removesuffix(".0") for p in row) for row in predicted]
    assert data["texts"]["prediction"] == expected


def test_a_regression_of_whole_numbers_has_no_mismatches(tmp_path):
    X, y = np.random.default_rng(0).random((40, 2)), np.arange(40)
    data = read_data(explore(nn.Linear(2, 1).double(), X, y, tmp_path / "page.html"))
    assert not any(data["mismatches"])


def test_classes_that_differ_in_the_last_digit_have_different_texts(tmp_path):
    F = np.eye(3)[np.arange(12) % 3]
    y = 100_001.0 + np.arange(12) % 3
    data = read_data(explore("features", F, y, tmp_path / "page.html"))
    assert set(data["texts"]["label"]) == {"100001", "100002", "100003"}


def test_there_are_no_texts_without_labels_and_predictions():
    texts = format_texts(None, None, None, 3)
    assert texts.columns == {} and texts.mismatches.tolist() == [False] * 3


def test_predictions_are_shown_without_labels():
    texts = format_texts(None, None, [1.5, 2.0], 2)
    assert texts.columns == {"prediction": ["1.5", "2"]} and not texts.mismatches.any()


def test_given_predictions_are_compared_with_the_labels():
    X, y = np.random.default_rng(0).random((4, 2)), np.array(["a", "b", "a", "b"])
    denoiser = LabelDenoiser(nn.Linear(2, 2).double()).fit(X, np.arange(4) % 2)
    texts = format_texts(denoiser, y, ["a", "a", "b", "b"], 4)
    assert texts.columns == {"label": ["a", "b", "a", "b"], "prediction": ["a", "a", "b", "b"]}
    assert texts.mismatches.tolist() == [False, True, True, False]


def test_several_columns_of_labels_are_separated_by_commas():
    texts = format_texts(None, None, np.array([[0.25, 1.0], [2.0, 0.5]]), 2)
    assert texts.columns["prediction"] == ["0.25, 1", "2, 0.5"]
