"""Labels as values and coordinates, and the decision between numbers and classes."""

import numpy as np
import pytest
import skorch
import torch
from torch import nn

from sknetsim._features.source import FeatureSource
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim.labels._targets import (
    Classification,
    Regression,
    check_labels,
    infer_target,
    is_classification,
    require_network,
    squeeze_column,
    to_columns,
)

CLASSES = np.array(["cat", "dog", "owl"])


def make_regression(flat=False):
    return Regression(np.array([3.0, -1.0]), np.array([2.0, 0.5]), flat)


def make_targets():
    return {"numbers": make_regression(), "classes": Classification(CLASSES)}


def make_values(name, count=7):
    values = np.random.default_rng(0).random((count, 2 if name == "numbers" else 3))
    return values if name == "numbers" else values / values.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", make_targets())
def test_values_follow_from_their_coordinates(name):
    target, values = make_targets()[name], make_values(name)
    coordinates = target.coordinates(values)
    assert coordinates.shape[1] == len(target.basis)
    np.testing.assert_allclose(target.from_coordinates(coordinates), values)


@pytest.mark.parametrize("name", make_targets())
def test_the_basis_is_orthonormal(name):
    basis = make_targets()[name].basis
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-12)


def test_coordinates_of_classes_ignore_what_all_logits_share():
    target, logits = Classification(CLASSES), np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(target.basis.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(target.coordinates(logits + 7), target.coordinates(logits))


def test_values_of_classes_are_one_hot():
    values = Classification(CLASSES).values(["owl", "cat"])
    np.testing.assert_array_equal(values, [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("y", [["owl", "cat"], [["owl"], ["cat"]]], ids=["flat", "column"])
def test_labels_of_classes_are_the_classes_with_the_largest_value(y):
    target = Classification(CLASSES)
    assert target.labels(target.values(y)).tolist() == ["owl", "cat"]


def test_numbers_have_as_many_axes_as_in_fit():
    values = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(make_regression().labels(values), values)
    np.testing.assert_array_equal(make_regression(flat=True).labels(values), values[:, 0])


def test_equal_labels_have_equal_keys():
    assert Classification(CLASSES).label_keys(["owl", "cat", "owl", "bat"]) == [2, 0, 2, -1]
    keys = make_regression().label_keys([[1, 2], [1, 3], [1, 2]])
    assert keys[0] == keys[2] != keys[1]


def test_the_agreement_of_numbers_falls_with_the_residual_in_standard_deviations():
    # Residuals of 0, and of 1 and 2 standard deviations.
    y, values = np.array([[3.0, -1.0]] * 2), np.array([[3.0, -1.0], [5.0, 0.0]])
    agreement = make_regression().agreement(y, values)
    np.testing.assert_allclose(agreement, [1, 1 / (1 + (1 + 4) / 2)])


def test_the_agreement_of_classes_is_the_value_of_the_labels_class():
    agreement = Classification(CLASSES).agreement(["dog", "cat"], np.array([[0.2, 0.7, 0.1]] * 2))
    np.testing.assert_allclose(agreement, [0.7, 0.2])


def test_the_score_is_r_squared_or_the_accuracy():
    y = np.array([[1.0, 2.0], [3.0, 5.0]])
    assert make_regression().score(y, y) == 1
    assert make_regression().score(y, np.tile(y.mean(axis=0), (2, 1))) == 0
    values = np.array([[0.2, 0.7, 0.1], [0.2, 0.7, 0.1]])
    assert Classification(CLASSES).score(["dog", "bat"], values) == 0.5


def make_module(outputs, *ending):
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, outputs), *ending)


def infer(estimator, y):
    source = GradientEngine(resolve_network(estimator), "all")
    return infer_target(source, Samples(torch.zeros(len(y), 2)), y)


def make_classifier(outputs, criterion):
    net = skorch.NeuralNetClassifier(make_module(outputs), criterion=criterion, device="cpu")
    return net.initialize()


@pytest.mark.parametrize(
    ("make", "y"),
    [
        (lambda: make_module(1), [0, 1, 1]),
        (lambda: make_module(3), [[0.5, 1, 2]] * 3),
        (lambda: make_module(3), [0.5, 1.5, 2.5]),
    ],
    ids=["one output", "several columns", "fractions"],
)
def test_labels_of_modules_are_numbers(make, y):
    assert isinstance(infer(make(), y), Regression)


@pytest.mark.parametrize(
    ("make", "y", "classes"),
    [
        (lambda: make_module(3), [0, 1, 1], [0, 1, 2]),
        (lambda: make_module(2), ["b", "a", "b"], ["a", "b"]),
        (lambda: make_classifier(3, nn.CrossEntropyLoss), [0, 1, 1], [0, 1, 2]),
        (lambda: make_classifier(1, nn.BCEWithLogitsLoss), [0, 1, 1], [0, 1]),
    ],
    ids=["module", "names", "classifier", "one logit"],
)
def test_classes_are_in_the_order_of_the_outputs(make, y, classes):
    target = infer(make(), np.array(y))
    assert isinstance(target, Classification)
    assert target.classes.tolist() == classes
    assert not target.probabilities


def test_probabilities_of_a_module_are_recognised():
    assert infer(make_module(3, nn.Softmax(dim=1)), [0, 1, 2]).probabilities


def test_labels_of_features_are_classes_unless_they_are_fractions_or_a_column():
    X = Samples(np.eye(3))
    assert infer_target(FeatureSource(), X, ["a", "b", "a"]).classes.tolist() == ["a", "b"]
    assert infer_target(FeatureSource(), X, [7, 5, 7]).classes.tolist() == [5, 7]
    assert isinstance(infer_target(FeatureSource(), X, [0.5, 1.5, 2.5]), Regression)
    assert isinstance(infer_target(FeatureSource(), X, [[7], [5], [7]]), Regression)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_labels_can_be_tensors(dtype):
    labels = check_labels(torch.tensor([1, 2], dtype=dtype, requires_grad=dtype.is_floating_point))
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == [1, 2]


def test_a_single_column_is_squeezed():
    assert squeeze_column(np.zeros((4, 1))).shape == (4,)
    assert squeeze_column(np.zeros((4, 2))).shape == (4, 2)
    assert squeeze_column(np.zeros(4)).shape == (4,)


def test_numbers_become_columns_of_doubles():
    columns = to_columns([1, 2, 3])
    assert columns.shape == (3, 1)
    assert columns.dtype == np.float64


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0, 1, 5], True), (["a", "b"], True), ([0.0, 1.0], True), ([0.5, 1.0], False)],
    ids=str,
)
def test_names_and_whole_numbers_are_classes(labels, expected):
    assert is_classification(np.array(labels)) is expected


BAD = {
    "missing": (lambda: check_labels(None), "`y` must be the labels of X; got None"),
    "infinite": (lambda: check_labels([1.0, np.inf]), "`y` must be finite; got NaN or infinity"),
    "words": (lambda: to_columns(["a", "b"]), "`y` must be numbers with 1 or 2 axes; got dtype"),
    "axes": (lambda: to_columns(np.zeros((2, 2, 2))), "got dtype float64 with 3 axes"),
    "columns": (
        lambda: make_regression().values([1.0, 2.0]),
        "`y` must have as many columns as in fit, 2; got 1",
    ),
    "class": (
        lambda: Classification(CLASSES).values(["bat"]),
        "`y` must contain only the classes cat, dog, owl; got bat",
    ),
    "one class": (
        lambda: infer(make_module(3), [1, 1, 1]),
        "`y` must contain at least two classes; got one class, 1",
    ),
    "no network": (
        lambda: require_network(FeatureSource()),
        r"`estimator` must be a network, .*; got 'features'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_labels_raise_an_error_that_names_them(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
