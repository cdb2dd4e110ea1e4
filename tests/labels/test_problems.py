"""Kind of problem, from the criterion of a network and its labels."""

import warnings

import numpy as np
import pandas as pd
import pytest
import skorch
import torch
from torch import nn

from sknetsim import UnsupportedNetworkError
from sknetsim._features.source import FeatureSource
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.default_network import train_default_network
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim.labels._problems import infer_target
from sknetsim.labels._targets import Classification, Multilabel, Regression


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
        (lambda: make_classifier(3, nn.CrossEntropyLoss), [0, 1, 1], [0, 1, 2]),
        (lambda: make_classifier(1, nn.BCEWithLogitsLoss), [0, 1, 1], [0, 1]),
    ],
    ids=["module", "classifier", "one logit"],
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


@pytest.mark.parametrize("dtype", [bool, int, float, object])
def test_labels_of_features_are_several_labels_if_they_are_columns_of_0_and_1(dtype):
    X, y = Samples(np.eye(4)), SEVERAL.astype(bool).astype(dtype)
    assert isinstance(infer_target(FeatureSource(), X, y), Multilabel)
    for other in (SEVERAL[:, :1], SEVERAL + 1, SEVERAL / 2):
        assert type(infer_target(FeatureSource(), X, other)) is Regression


def make_net(outputs, criterion, kind=skorch.NeuralNet, ending=(), **params):
    """Return a skorch net with the given criterion, and its logits or other raw outputs."""
    net = kind(make_module(outputs, *ending), criterion=criterion, device="cpu", **params)
    return net.initialize()


def predict(net, y):
    """Return the predictions of a net for random samples, and its raw outputs for them."""
    X = torch.randn(len(y), 2)
    source = GradientEngine(resolve_network(net), "all")
    target = infer_target(source, Samples(X), y)
    module = net.module_ if hasattr(net, "module_") else net
    return target.predictions(source, Samples(X)), module(X).detach().double()


KINDS = [skorch.NeuralNet, skorch.NeuralNetClassifier, skorch.NeuralNetRegressor]
kinds = pytest.mark.parametrize("kind", KINDS)

#: Labels of three columns.
SEVERAL = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 0]])


@kinds
@pytest.mark.parametrize("dtype", [bool, int, float])
@pytest.mark.parametrize("criterion", [nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss])
def test_predictions_of_independent_labels_are_sigmoids_of_the_logits(kind, dtype, criterion):
    net, y = make_net(3, criterion, kind), SEVERAL.astype(dtype)
    assert isinstance(infer(net, y), Multilabel)
    predictions, raw = predict(net, y)
    np.testing.assert_allclose(predictions, raw.sigmoid(), rtol=1e-5)


@kinds
def test_predictions_of_independent_labels_are_the_probabilities_of_a_sigmoid(kind):
    net = make_net(3, nn.BCELoss, kind, [nn.Sigmoid()])
    assert isinstance(infer(net, SEVERAL), Multilabel)
    predictions, raw = predict(net, SEVERAL)
    np.testing.assert_allclose(predictions, raw, rtol=1e-5)


@kinds
@pytest.mark.parametrize("y", [np.array([0, 1, 1]), np.array([[0.0], [1.0], [1.0]])], ids=str)
@pytest.mark.parametrize(
    ("criterion", "ending"), [(nn.BCEWithLogitsLoss, []), (nn.BCELoss, [nn.Sigmoid()])]
)
def test_one_independent_label_is_a_binary_classification(kind, criterion, ending, y):
    net = make_net(1, criterion, kind, ending)
    target = infer(net, y)
    assert type(target) is Classification and target.classes.tolist() == [0, 1]
    predictions, raw = predict(net, y)
    expected = raw if ending else raw.sigmoid()
    np.testing.assert_allclose(predictions, torch.cat([1 - expected, expected], 1), rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 3])
def test_fractions_as_independent_labels_are_compared_with_probabilities(outputs):
    net, y = make_net(outputs, nn.BCEWithLogitsLoss), np.linspace(0, 1, 4 * outputs)
    y = y.reshape(4, outputs)
    assert type(infer(net, y)) is Regression
    predictions, raw = predict(net, y)
    np.testing.assert_allclose(predictions, raw.sigmoid(), rtol=1e-5)


@kinds
@pytest.mark.parametrize(
    ("criterion", "ending"),
    [(nn.CrossEntropyLoss, []), (nn.NLLLoss, [nn.LogSoftmax(dim=1)]), (nn.MultiMarginLoss, [])],
)
@pytest.mark.parametrize("y", [[0, 2, 1], [0.0, 2.0, 1.0], [[0], [2], [1]], [0, 1, 1]], ids=str)
def test_a_criterion_for_classes_makes_any_net_a_classification(kind, criterion, ending, y):
    if kind is skorch.NeuralNetClassifier and criterion is nn.NLLLoss:
        ending = [nn.Softmax(dim=1)]  # The classifier takes the logarithm.
    net = make_net(3, criterion, kind, ending)
    target = infer(net, np.array(y))
    assert type(target) is Classification and target.classes.tolist() == [0, 1, 2]
    predictions, raw = predict(net, np.array(y))
    logits = raw.log() if isinstance(net.module_[-1], nn.Softmax) else raw
    np.testing.assert_allclose(predictions, logits.softmax(dim=1), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_exponentials_that_overflow_raise_an_error():
    net = make_net(1, nn.PoissonNLLLoss)
    with torch.no_grad():
        net.module_[-1].bias += 1000
    with pytest.raises(UnsupportedNetworkError, match=r"finite exponentials; .* in row 0 of X"):
        predict(net, np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("criterion", "params", "expected"),
    [
        (nn.PoissonNLLLoss, {}, torch.exp),
        (nn.PoissonNLLLoss, {"criterion__log_input": False}, lambda raw: raw),
        (nn.KLDivLoss, {}, torch.exp),
        (nn.KLDivLoss, {"criterion__log_target": True}, lambda raw: raw),
        (nn.MSELoss, {}, lambda raw: raw),
        (nn.HuberLoss, {}, lambda raw: raw),
    ],
)
def test_predictions_are_in_the_unit_of_the_labels(criterion, params, expected):
    net, y = make_net(2, criterion, **params), np.array([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
    assert type(infer(net, y)) is Regression
    predictions, raw = predict(net, y)
    np.testing.assert_allclose(predictions, expected(raw), rtol=1e-5)


class FocalLoss(nn.Module):
    """Criterion that is unknown to the package."""

    def forward(self, outputs, labels):
        return ((labels - outputs.sigmoid()) ** 2).mean()


@pytest.mark.parametrize("y", [[0, 1, 1], [[0, 1], [1, 1], [0, 0]]], ids=str)
@pytest.mark.parametrize("criterion", [None, FocalLoss])
def test_outputs_that_may_be_logits_of_the_labels_give_a_warning(y, criterion):
    module = make_module(np.ndim(np.array(y)[0]) + 1)
    with torch.no_grad():
        module[-1].bias += 3
    net = skorch.NeuralNet(module, criterion=criterion).initialize() if criterion else module
    with pytest.warns(UserWarning, match=r"leave the range from 0 to 1\. If they are logits"):
        assert type(infer(net, y)) is Regression


@pytest.mark.parametrize(
    ("make", "y"),
    [
        (lambda: make_module(2, nn.Sigmoid()), [[0, 1], [1, 1], [0, 0]]),
        (lambda: make_module(1), [0, 1, 2]),
        (lambda: make_net(1, nn.MSELoss), [0, 1, 1]),
        (lambda: make_net(2, nn.PoissonNLLLoss), [[0, 1], [1, 1], [0, 0]]),
    ],
    ids=["probabilities", "other numbers", "squared error", "counts"],
)
def test_numbers_of_a_known_unit_give_no_warning(make, y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infer(make(), y)


#: Labels that are shares of two classes.
SHARES = [[0.2, 0.8], [0.5, 0.5]]

NAMES = ["dog", "cat", "owl"]


@pytest.mark.parametrize(
    "form",
    [list, np.array, pd.Series, pd.Categorical, lambda names: np.array(names, dtype=object)],
    ids=["list", "strings", "Series", "Categorical", "objects"],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda: make_module(3),
        lambda: make_module(1),
        lambda: make_net(3, nn.CrossEntropyLoss),
        lambda: make_net(3, nn.BCEWithLogitsLoss),
        lambda: make_classifier(3, nn.CrossEntropyLoss),
    ],
    ids=["module", "one output", "net", "multilabel", "classifier"],
)
def test_names_are_refused_if_the_order_of_the_outputs_is_unknown(make, form):
    with pytest.raises(ValueError, match=r"`y` must contain numbers, .* got dtype <U3\. Encode"):
        infer(make(), form(NAMES))


def test_names_are_in_sorted_order_in_the_default_network():
    X = np.random.default_rng(0).normal(size=(3, 2))
    network = train_default_network(X, np.array(NAMES), 0)
    assert infer(network.float(), NAMES).classes.tolist() == sorted(NAMES)


BAD = {
    "one class": (
        lambda: infer(make_module(3), [1, 1, 1]),
        "`y` must contain at least two classes; got one class, 1",
    ),
    "one label": (
        lambda: infer(make_net(1, nn.BCEWithLogitsLoss), [[1], [1], [1]]),
        "`y` must contain at least two classes; got one class, 1",
    ),
    "columns of labels": (
        lambda: predict(make_net(3, nn.BCEWithLogitsLoss), np.array([0, 1, 1])),
        "as many columns as the network has outputs, 3; got 1",
    ),
    "classes in place of labels": (
        lambda: infer(make_net(3, nn.BCEWithLogitsLoss), [0, 1, 2]),
        "`y` must contain 0 and 1, .* BCEWithLogitsLoss; got numbers from 0 to 2",
    ),
    "signs in place of labels": (
        lambda: infer(make_net(2, nn.BCELoss, ending=[nn.Sigmoid()]), [[-1, 1], [1, 1]]),
        "`y` must contain 0 and 1, .* BCELoss; got numbers from -1 to 1",
    ),
    "fractions for a binary classifier": (
        lambda: infer(make_classifier(1, nn.BCEWithLogitsLoss), [0.2, 0.7]).values([0.2, 0.7]),
        "`y` must contain only the classes 0, 1; got 0.2",
    ),
    "shares of classes": (
        lambda: infer(make_net(2, nn.CrossEntropyLoss), SHARES).values(SHARES),
        r"among 0, 1; got shape \(2, 2\)\. Pass a single column, or for several labels",
    ),
    "scores": (
        lambda: infer(make_net(2, nn.SoftMarginLoss), [[-1, 1], [1, 1]]),
        "got a net with the criterion SoftMarginLoss, whose outputs are scores",
    ),
    "margins": (
        lambda: infer(make_net(2, nn.MultiLabelMarginLoss), [[0, 1], [1, -1]]),
        "got a net with the criterion MultiLabelMarginLoss, whose outputs are scores",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_labels_raise_an_error_that_names_them(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
