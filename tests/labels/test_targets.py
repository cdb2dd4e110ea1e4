"""Labels and predictions as values and coordinates."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from sknetsim._features.source import FeatureSource
from sknetsim.labels._targets import Classification, Multilabel, Regression, require_network

CLASSES = np.array(["cat", "dog", "owl"])

#: Labels of two columns, 0 or 1, and probabilities of them.
INDICATORS = np.array([[0, 1], [1, 1], [0, 0]])
PROBABILITIES = np.array([[0.2, 0.9], [0.6, 0.3], [0.5, 0.4]])


def make_regression(flat=False):
    return Regression(np.array([3.0, -1.0]), np.array([2.0, 0.5]), flat)


def make_multilabel():
    return Multilabel(np.array([0.3, 0.6]), np.array([0.4, 0.5]), False)


def make_targets():
    return {
        "numbers": make_regression(),
        "classes": Classification(CLASSES),
        "multilabel": make_multilabel(),
    }


def make_values(name, count=7):
    values = np.random.default_rng(0).random((count, 3 if name == "classes" else 2))
    return values / values.sum(axis=1, keepdims=True) if name == "classes" else values


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


@pytest.mark.parametrize("dtype", [bool, int, float, np.float32, object])
def test_values_of_several_labels_are_the_labels(dtype):
    values = make_multilabel().values(INDICATORS.astype(dtype))
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, INDICATORS)


def test_a_predicted_label_is_1_if_its_value_exceeds_a_half():
    labels = make_multilabel().labels(PROBABILITIES)
    assert labels.dtype == np.int64
    assert labels.tolist() == [[0, 1], [1, 0], [0, 0]]


def test_the_agreement_of_several_labels_is_the_smallest_of_them():
    # Per label, the agreements are (.8, .9), (.6, .3) and (.5, .6).
    agreement = make_multilabel().agreement(INDICATORS, PROBABILITIES)
    np.testing.assert_allclose(agreement, [0.8, 0.3, 0.5])
    np.testing.assert_allclose(make_multilabel().agreement(INDICATORS, INDICATORS), 1)


def test_the_score_of_several_labels_is_the_accuracy_of_all_of_them_together():
    target = make_multilabel()
    assert target.score(INDICATORS, PROBABILITIES) == pytest.approx(2 / 3)
    assert target.score(INDICATORS, PROBABILITIES) == pytest.approx(
        accuracy_score(INDICATORS, PROBABILITIES > 0.5)
    )


def test_names_and_numbers_are_not_mixed_up_in_a_score():
    with pytest.raises(ValueError, match=r"only the classes cat, dog, owl; got 1\. Number"):
        Classification(CLASSES).score([1, 2], np.eye(3)[:2])
    with pytest.raises(ValueError, match=r"only the classes 0, 1, 2; got cat\. Number"):
        Classification(np.arange(3)).score(["cat", "dog"], np.eye(3)[:2])


BAD = {
    "columns": (
        lambda: make_regression().values([1.0, 2.0]),
        "`y` must have as many columns as in fit, 2; got 1",
    ),
    "class": (
        lambda: Classification(CLASSES).values(["bat"]),
        "`y` must contain only the classes cat, dog, owl; got bat",
    ),
    "several labels": (
        lambda: make_multilabel().values([[0, 2], [1, 0]]),
        "`y` must contain only 0 and 1, one for each label; got numbers from 0 to 2",
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
