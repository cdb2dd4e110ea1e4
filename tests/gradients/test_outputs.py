"""Compared outputs: logits, predicted outputs, losses and callables."""

import numpy as np
import pandas as pd
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim import (
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    SoftmaxOutputWarning,
    UnsupportedNetworkError,
    ZeroGradientWarning,
)

from .. import naive
from ..cases import NETWORKS, build

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def make_scores(outputs=3, softmax=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)]
        return nn.Sequential(*layers, *[nn.Softmax(dim=1)] * softmax)


def make_net(kind, module, criterion, **params):
    return kind(module, criterion=criterion, verbose=0, **params).initialize()


def loss_gram(network, loss, labels):
    """Return the cosine similarity of the gradients of the loss, from a loop over samples."""
    labels = iter(labels)
    J = naive.jacobians(network, X, lambda raw: loss(raw, next(labels)[None]))
    return naive.correlation(J, J, 1e-7)


CRITERIA = {
    "cross-entropy": (nn.CrossEntropyLoss, make_scores(), nn.functional.cross_entropy),
    "label smoothing": (
        lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
        make_scores(),
        lambda raw, y: nn.functional.cross_entropy(raw, y, label_smoothing=0.1),
    ),
    "negative log-likelihood": (
        nn.NLLLoss,
        make_scores(softmax=True),
        lambda raw, y: nn.functional.nll_loss(raw.log(), y),
    ),
}


@pytest.mark.parametrize(("criterion", "module", "loss"), CRITERIA.values(), ids=CRITERIA)
def test_the_loss_is_compared_at_the_given_labels(criterion, module, loss):
    net = make_net(NeuralNetClassifier, module, criterion)
    features = GradientFeaturizer(net, output="loss").fit_transform(X, LABELS.numpy())
    expected = loss_gram(net.module_, loss, LABELS)
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-4)


def test_the_loss_is_compared_at_the_predicted_labels_without_labels():
    net = make_net(NeuralNetClassifier, make_scores(), nn.CrossEntropyLoss)
    predicted = net.module_(X).argmax(dim=1)
    expected = loss_gram(net.module_, nn.functional.cross_entropy, predicted)
    np.testing.assert_allclose(NetworkKernel(net, output="loss")(X), expected, atol=1e-4)


def test_the_loss_of_a_binary_classifier_is_compared():
    module = nn.Sequential(make_scores(1), nn.Flatten(0))
    net = make_net(NeuralNetBinaryClassifier, module, nn.BCEWithLogitsLoss)
    predicted = (net.module_(X) > 0).float()
    expected = loss_gram(net.module_, nn.functional.binary_cross_entropy_with_logits, predicted)
    np.testing.assert_allclose(NetworkKernel(net, output="loss")(X), expected, atol=1e-4)


def test_the_loss_of_a_classifier_that_ends_in_a_sigmoid_is_compared():
    module = nn.Sequential(make_scores(1), nn.Sigmoid(), nn.Flatten(0))
    net = make_net(NeuralNetBinaryClassifier, module, nn.BCELoss)
    predicted = (net.module_(X) > 0.5).float()
    assert 0 < predicted.sum() < len(X)
    expected = loss_gram(net.module_, nn.functional.binary_cross_entropy, predicted)
    np.testing.assert_allclose(NetworkKernel(net, output="loss")(X), expected, atol=1e-4)


def test_a_classifier_that_ends_in_a_sigmoid_is_compared_by_its_logit():
    module = nn.Sequential(make_scores(1), nn.Flatten(0))
    net = make_net(NeuralNetBinaryClassifier, nn.Sequential(module, nn.Sigmoid()), nn.BCELoss)
    expected = NetworkKernel(module, normalize=False)(X)
    np.testing.assert_allclose(NetworkKernel(net, normalize=False)(X), expected, rtol=1e-3)


def test_a_binary_classifier_may_return_a_column_of_outputs():
    net = make_net(NeuralNetBinaryClassifier, make_scores(1), nn.BCEWithLogitsLoss)
    whole = NetworkKernel(net, output="loss")(X)
    flat = make_net(
        NeuralNetBinaryClassifier, nn.Sequential(net.module_, nn.Flatten(0)), nn.BCEWithLogitsLoss
    )
    np.testing.assert_allclose(whole, NetworkKernel(flat, output="loss")(X), atol=1e-5)
    labels = pd.Series(LABELS.numpy() % 2)
    features = GradientFeaturizer(net, output="loss").fit_transform(X, labels)
    assert np.isfinite(features).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(list("abcabcab")), "`y` must contain numbers.*got dtype <U1.*LabelEncoder"),
        (
            LABELS.numpy() + 1,
            "`y` must contain class numbers from 0 to 2, .* got numbers from 1 to 3",
        ),
    ],
)
def test_labels_must_be_class_numbers(labels, message):
    net = make_net(NeuralNetClassifier, make_scores(), nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=message):
        GradientFeaturizer(net, output="loss").fit_transform(X, labels)


def test_a_generic_skorch_net_is_compared_without_a_logarithm():
    """skorch's NeuralNet passes outputs to NLLLoss without a logarithm."""
    module = nn.Sequential(make_scores(), nn.LogSoftmax(dim=1))
    net = make_net(NeuralNet, module, nn.NLLLoss)
    np.testing.assert_allclose(NetworkKernel(net)(X), NetworkKernel(module)(X), atol=1e-6)


def test_the_loss_of_a_regressor_needs_labels():
    net = make_net(NeuralNetRegressor, make_scores(2), nn.MSELoss)
    targets = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    features = GradientFeaturizer(net, output="loss").fit_transform(X, targets.numpy())
    expected = loss_gram(net.module_, nn.functional.mse_loss, targets)
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-4)
    with pytest.raises(
        ValueError, match="`y` must be given if `output` is 'loss' and the network is a regressor"
    ):
        NetworkDensity(net, output="loss").fit(X)


def test_the_loss_needs_a_criterion():
    with pytest.raises(
        ValueError, match=r"must be a skorch net whose criterion .*; got the criterion None"
    ):
        NetworkKernel(make_scores(), output="loss")(X)


def test_predicted_selects_the_largest_output():
    network = make_scores()
    largest = network(X).argmax(dim=1)
    gram = NetworkKernel(network, output="predicted", normalize=False)(X)
    assert len(largest.unique()) > 1
    for index in largest.unique().tolist():
        rows = (largest == index).nonzero()[:, 0]
        expected = NetworkKernel(network, output=index, normalize=False)(X[rows])
        np.testing.assert_allclose(gram[np.ix_(rows, rows)], expected, rtol=1e-4)


def test_probabilities_of_a_module_raise_a_warning():
    with pytest.warns(SoftmaxOutputWarning, match=r"output=lambda raw: raw.log\(\)"):
        NetworkKernel(make_scores(softmax=True))(X)


def test_log_probabilities_have_one_rank_less_and_a_unit_diagonal():
    network = make_scores(softmax=True).double()
    kernel = NetworkKernel(network, output=lambda raw: raw.log())
    np.testing.assert_allclose(np.diag(kernel(X.double())), 1, atol=1e-10)
    ranks = np.linalg.matrix_rank(kernel.matrix(X.double())[0, 0], tol=1e-6)
    assert ranks == 2


def test_probabilities_that_underflow_do_not_give_nan():
    network = make_scores(softmax=True)
    network[2].weight.data *= 1000
    net = make_net(NeuralNetClassifier, network, nn.NLLLoss)
    assert (net.module_(X) == 0).any()
    with pytest.warns(ZeroGradientWarning):
        assert np.isfinite(NetworkKernel(net)(X)).all()


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("logits", ValueError, "must be 'all', 'predicted', 'sum', 'loss', .*; got 'logits'"),
        (3, ValueError, "must contain indices from -3 to 2, .*; got 3"),
        (None, ValueError, "`output` must be .*; got None"),
        (1.5, ValueError, r"`output` must be .*; got 1\.5"),
        (True, ValueError, "`output` must be .*; got True"),
        ([], ValueError, r"`output` must be .*; got \[\]"),
        (["a"], ValueError, r"`output` must be .*; got \['a'\]"),
        ([0, -4], ValueError, "must contain indices from -3 to 2, .*; got -4"),
        (lambda raw: None, UnsupportedNetworkError, "`output` must return .* got a NoneType"),
        (lambda raw: raw.sum(), UnsupportedNetworkError, "`output` must return .* got a scalar"),
    ],
)
def test_an_invalid_output_raises_an_error(output, error, message):
    with pytest.raises(error, match=message):
        NetworkKernel(make_scores(), output=output)(X)


def test_a_network_that_returns_a_tuple_needs_a_callable():
    class Pair(nn.Linear):
        def forward(self, rows):
            return super().forward(rows), rows

    with pytest.raises(
        UnsupportedNetworkError, match=r"`estimator` must return .* got a tuple.*lambda raw: raw"
    ):
        NetworkKernel(Pair(4, 2))(X)


def test_a_network_must_return_a_tensor():
    class Silent(nn.Linear):
        def forward(self, rows):
            super().forward(rows)

    with pytest.raises(UnsupportedNetworkError, match=r"must return one tensor .* got a NoneType"):
        NetworkKernel(Silent(4, 3))(torch.randn(5, 4))


def test_outputs_may_have_another_dtype_than_the_network():
    network, X = build(NETWORKS[0], dtype=torch.float32)
    expected = NetworkKernel(network)(X)
    gram = NetworkKernel(network, output=lambda raw: raw.double())(X)
    np.testing.assert_allclose(gram, expected, atol=1e-5)


def test_outputs_with_a_zero_gradient_have_zero_similarity():
    network, X = build(NETWORKS[0])
    with pytest.warns(ZeroGradientWarning, match="6 of 6"):
        assert not NetworkKernel(network, output=lambda raw: 0 * raw)(X).any()
