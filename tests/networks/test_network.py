"""Networks of estimators: skorch nets, modules, Pipelines and wrappers, which stay trained."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import KernelPCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim import (
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    UnsupportedNetworkError,
)
from sknetsim._networks.modules import format_names, match_names
from sknetsim._networks.network import resolve_network


class Perceptron(nn.Module):
    """Small classifier; skorch's default criterion needs the softmax."""

    def __init__(self, hidden=6, outputs=3, softmax=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
        self.softmax = softmax

    def forward(self, X):
        scores = self.layers(X)
        return scores.softmax(dim=1) if self.softmax else scores


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(40, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)


def classifier(**params):
    params = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2, "verbose": 0, **params}
    return NeuralNetClassifier(Perceptron, train_split=None, **params)


@pytest.fixture
def net(data):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return classifier().fit(*data)


def weights(net):
    return [parameter.detach().numpy().tobytes() for parameter in net.module_.parameters()]


WRAPPERS = {
    "skorch net": lambda net: net,
    "FrozenEstimator": FrozenEstimator,
    "module": lambda net: net.module_,
    "compiled": lambda net: torch.compile(net.module_, backend="eager"),
    "DataParallel": lambda net: nn.DataParallel(net.module_),
}
wrappers = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)


@wrappers
def test_wrappers_do_not_change_the_kernel(data, net, wrap):
    X, _ = data
    expected = NetworkKernel(net.module_)(X)
    np.testing.assert_allclose(NetworkKernel(wrap(net))(X), expected, atol=1e-6)


@wrappers
def test_clones_share_the_trained_network(data, net, wrap):
    X, _ = data
    kept = wrap(net)
    for estimator in (NetworkKernel(kept), NetworkDensity(kept), NetworkNeighbors(kept)):
        copy = clone(estimator)
        assert copy.estimator is kept
        assert copy.fit(X).estimator_ is kept
        assert type(copy) is type(estimator)


def test_clones_keep_the_other_parameters(net):
    density = NetworkDensity(net, method="power", alpha=7.0, output="predicted")
    assert clone(density).get_params() == density.get_params()


def test_a_grid_search_keeps_the_trained_network(data, net):
    X, _ = data
    before = weights(net)
    search = GridSearchCV(
        NetworkDensity(net, method="power", dimension=3.0), {"alpha": [1.0, 8.0]}, cv=3
    )
    search.fit(X)
    assert search.best_estimator_.estimator_ is net
    assert weights(net) == before


def test_a_search_over_parameters_of_a_trained_network_raises_an_error(data, net):
    before = weights(net)
    density = NetworkDensity(net)
    assert not any(name.startswith("estimator__") for name in density.get_params(deep=True))
    with pytest.raises(ValueError, match="`estimator__module__hidden` must belong to an untrained"):
        density.set_params(estimator__module__hidden=3)
    with pytest.raises(ValueError, match="got a trained network"):
        GridSearchCV(density, {"estimator__module__hidden": [2, 3]}, error_score="raise").fit(
            data[0]
        )
    assert weights(net) == before


def test_a_search_may_compare_frozen_networks(data, net):
    """The error of a search over a network's own parameters suggests this."""
    X, y = data
    other = classifier(module__hidden=3).fit(X, y)
    grid = {"estimator": [FrozenEstimator(net), FrozenEstimator(other)]}
    before = weights(net), weights(other)
    search = GridSearchCV(NetworkDensity(net, dimension=2.0), grid, cv=2).fit(X, y)
    assert search.best_params_["estimator"].estimator in (net, other)
    assert (weights(net), weights(other)) == before


def test_an_untrained_net_has_parameters_and_is_trained_in_fit(data):
    untrained = classifier()
    featurizer = GradientFeaturizer(untrained).set_params(estimator__module__hidden=2)
    X, y = data
    features = featurizer.fit(X.astype(np.float64), y).transform(X)
    assert featurizer.estimator_.module_.layers[0].out_features == 2
    assert not getattr(untrained, "initialized_", False)
    assert features.shape == (40, 3 * (2 * 5 + 3 * 3))


def test_an_untrained_net_needs_y(data):
    with pytest.raises(ValueError, match=r"an untrained NeuralNetClassifier; got None\. Pass"):
        NetworkDensity(classifier()).fit(data[0])
    with pytest.raises(NotFittedError, match=r"must be a trained network .*; got an untrained"):
        NetworkKernel(classifier())(data[0])
    with pytest.raises(NotFittedError, match=r"not (fitted|trained)"):
        NetworkDensity(FrozenEstimator(classifier())).fit(*data)


@pytest.mark.parametrize("bad", [3, "network", LogisticRegression(), nn.Linear], ids=repr)
def test_other_estimators_raise_an_error(data, bad):
    X, y = data
    with pytest.raises(TypeError, match="`estimator` must be a skorch net, a FrozenEstimator"):
        NetworkDensity(bad).fit(X, y)


def test_the_steps_of_a_pipeline_are_applied_before_the_network(data, net):
    X, y = data
    pipeline = make_pipeline(StandardScaler(), classifier()).fit(X, y)
    scaled = pipeline[:-1].transform(X)
    expected = NetworkKernel(pipeline[-1])(scaled)
    np.testing.assert_allclose(NetworkKernel(pipeline)(X), expected, atol=1e-6)


def test_estimators_work_inside_pipelines_and_kernel_machines(data, net):
    X, y = data
    features = make_pipeline(GradientFeaturizer(net), LogisticRegression()).fit(X, y)
    assert features.score(X, y) > 0.5
    assert SVC(kernel=NetworkKernel(net)).fit(X, y).score(X, y) > 0.5
    gram = NetworkKernel(net)(X)
    np.testing.assert_allclose(
        KernelRidge(kernel=NetworkKernel(net)).fit(X, y).dual_coef_,
        KernelRidge(kernel="precomputed").fit(gram, y).dual_coef_,
        atol=1e-6,
    )
    assert KernelPCA(2, kernel=NetworkKernel(net)).fit_transform(X).shape == (40, 2)
    kernel = NetworkKernel(net).fit(X)
    np.testing.assert_allclose(kernel.transform(X[:5]), gram[:5], atol=1e-6)


def test_pickled_estimators_compute_the_same(data, net):
    X, _ = data
    for estimator in (NetworkDensity(net), NetworkDensity(net, method="power")):
        fitted = estimator.fit(X)
        loaded = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_allclose(loaded.score_samples(X), fitted.score_samples(X), atol=1e-6)


def test_log_probabilities_are_compared_if_skorch_takes_a_logarithm(data):
    X, y = data
    net = NeuralNetClassifier(Perceptron, module__softmax=True, max_epochs=1, verbose=0).fit(X, y)
    log_softmax = NetworkKernel(net.module_, output=lambda raw: raw.log())(X)
    np.testing.assert_allclose(NetworkKernel(net)(X), log_softmax, atol=1e-6)


@pytest.mark.parametrize("make", [NeuralNet, NeuralNetClassifier, NeuralNetRegressor])
@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (nn.BCELoss, True),
        (nn.BCEWithLogitsLoss, True),
        (nn.MultiLabelSoftMarginLoss, True),
        (nn.CrossEntropyLoss, False),
        (nn.NLLLoss, False),
        (nn.MSELoss, False),
    ],
)
def test_labels_are_independent_if_the_criterion_takes_a_probability_of_each(
    make, criterion, expected
):
    net = make(nn.Linear(4, 3), criterion=criterion).initialize()
    assert resolve_network(net).has_independent_labels is expected
    assert resolve_network(net.module_).has_independent_labels is False


def test_a_compiled_criterion_has_the_meaning_of_the_criterion_inside():
    net = NeuralNet(nn.Linear(4, 3), criterion=nn.BCEWithLogitsLoss).initialize()
    net.criterion_ = torch.compile(net.criterion_)
    assert resolve_network(net).has_independent_labels


@pytest.mark.parametrize("make", [NeuralNet, NeuralNetClassifier])
def test_probabilities_of_labels_are_compared_as_logits(data, make):
    X, module = data[0], nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()).double()
    net = make(module, criterion=nn.BCELoss).initialize()
    np.testing.assert_allclose(NetworkKernel(net)(X), NetworkKernel(module[0])(X))


def test_regressors_and_generic_nets_have_kernels(data):
    X, _ = data
    y = X[:, :1] ** 2
    for kind in (NeuralNetRegressor, NeuralNet):
        net = kind(Perceptron, module__outputs=1, criterion=nn.MSELoss, max_epochs=1, verbose=0)
        gram = NetworkKernel(net.fit(X, y))(X)
        np.testing.assert_allclose(np.diag(gram), 1, atol=1e-5)


def batch_norm_without_statistics():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))


class FullyShardedDataParallel(nn.Linear):
    """Class with the name of torch's own, which needs a process group."""


REFUSED = {
    "sharded": (lambda: FullyShardedDataParallel(4, 3), "Gather its state_dict"),
    "no running statistics": (batch_norm_without_statistics, "track_running_stats=True"),
    "max_norm": (lambda: nn.Embedding(5, 3, max_norm=1.0), "and set max_norm=None"),
    "scale_grad_by_freq": (lambda: nn.Embedding(5, 3, scale_grad_by_freq=True), "by_freq=False"),
    "uninitialised": (lambda: nn.LazyLinear(3), "Run the network once on a batch"),
    "frozen": (lambda: nn.Linear(4, 3).requires_grad_(False), "Unfreeze those"),
}


@pytest.mark.parametrize(("build", "cure"), REFUSED.values(), ids=REFUSED)
def test_unsupported_networks_raise_an_error_with_a_cure(build, cure):
    with pytest.raises(UnsupportedNetworkError, match=cure):
        NetworkDensity(build()).fit(np.ones((5, 4)))


NAMES = ["body.weight", "body.bias", "head.weight"]
MATCHES = {
    "name": ("head.weight", {"head.weight"}),
    "pattern": ("body.*", {"body.weight", "body.bias"}),
    "list": (["*.bias", "head.*"], {"body.bias", "head.weight"}),
    "a pattern without a match": (["*.bias", "tail.*"], set()),
    "no pattern": ([], set()),
    "other values": ([1], set()),
    "None": (None, set()),
}


@pytest.mark.parametrize(("patterns", "expected"), MATCHES.values(), ids=MATCHES)
def test_names_are_matched_by_patterns(patterns, expected):
    assert match_names(NAMES, patterns) == expected


def test_at_most_twenty_names_are_listed_in_a_message():
    assert format_names(["a", "b"]) == "'a', 'b'"
    assert format_names(map(str, range(30))).endswith(", '19'")
