"""Kernels in scikit-learn's kernel machines, as metrics and as transformers."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import SpectralClustering
from sklearn.decomposition import KernelPCA
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import pairwise_distances
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import (
    NetworkKernel,
    NetworkNeighbors,
)
from sknetsim.estimators._base_kernel import iterate_chunks

from ..cases import NETWORKS, build


class Counting(NetworkKernel):
    """Kernel that counts its calls and the gram matrices that it computes."""

    calls, grams = 0, 0

    def __call__(self, X, Y=None, eval_gradient=False):
        Counting.calls += 1
        return super().__call__(X, Y, eval_gradient)

    def _compute_gram(self, source, X, Y):
        Counting.grams += 1
        return super()._compute_gram(source, X, Y)


@pytest.fixture
def data():
    network, X = build(NETWORKS[0], n_samples=24)
    Counting.calls = Counting.grams = 0
    return network, X.numpy(), np.arange(24) % 2, X[:, 0].numpy()


# Machines, and how often each calls its kernel in fit.
SVMS = {
    "SVC": (SVC, 1),
    "NuSVC": (NuSVC, 1),
    "SVR": (SVR, 1),
    "OneClassSVM": (OneClassSVM, 1),
}
RIDGE = {"KernelRidge": (KernelRidge, 1)}


@pytest.mark.parametrize(("machine", "calls"), {**SVMS, **RIDGE}.values(), ids={**SVMS, **RIDGE})
def test_a_kernel_machine_calls_the_kernel_once_in_fit_and_once_in_predict(data, machine, calls):
    network, X, labels, values = data
    y = values if machine in (SVR, KernelRidge) else labels
    gram = NetworkKernel(network)(X)
    expected = machine(kernel="precomputed").fit(gram[:16, :16], y[:16]).predict(gram[16:, :16])
    fitted = machine(kernel=Counting(network)).fit(X[:16], y[:16])
    assert Counting.calls == calls
    np.testing.assert_allclose(fitted.predict(X[16:]), expected, atol=1e-8)
    assert Counting.calls == 2 * calls


def test_kernel_pca_calls_the_kernel_once(data):
    network, X, *_ = data
    expected = KernelPCA(3, kernel="precomputed").fit_transform(NetworkKernel(network)(X))
    actual = KernelPCA(3, kernel=Counting(network)).fit_transform(X)
    assert Counting.calls == 1
    np.testing.assert_allclose(np.abs(actual), np.abs(expected), atol=1e-7)


def test_nystroem_calls_the_kernel_once_in_fit_and_once_in_transform(data):
    network, X, *_ = data
    actual = Nystroem(Counting(network), n_components=24, random_state=0).fit_transform(X)
    assert Counting.calls == 2
    np.testing.assert_allclose(actual @ actual.T, NetworkKernel(network)(X), atol=1e-6)


def test_spectral_clustering_calls_the_kernel_once(data):
    network, X, *_ = data
    params = {"n_clusters": 2, "random_state": 0}
    gram = np.exp(NetworkKernel(network)(X))
    expected = SpectralClustering(affinity="precomputed", **params).fit_predict(gram)

    class Positive(Counting):
        def __call__(self, X, Y=None, eval_gradient=False):
            return np.exp(super().__call__(X, Y, eval_gradient))

    actual = SpectralClustering(affinity=Positive(network), **params).fit_predict(X)
    assert Counting.calls == 1
    assert (actual == expected).all() or (actual != expected).all()


PROCESSES = {
    "alone": (lambda kernel: kernel, 2),
    "scaled": (lambda kernel: 2.0 * kernel, 1),
    "with noise": (lambda kernel: kernel + WhiteKernel(), 1),
    "scaled, with noise": (lambda kernel: 1.0 * kernel + WhiteKernel(), 1),
}
processes = pytest.mark.parametrize(("composed", "grams"), PROCESSES.values(), ids=PROCESSES)


@processes
def test_a_gaussian_process_regressor_computes_one_gram_matrix(data, composed, grams):
    """If hyper-parameters are tuned, the gradient is requested and the gram matrix is kept."""
    network, X, _, values = data
    kernel = composed(Counting(network))
    fitted = GaussianProcessRegressor(kernel, alpha=0.1).fit(X[:16], values[:16])
    assert Counting.grams == grams <= Counting.calls
    gram = fitted.kernel_(X[:16])
    across = fitted.kernel_(X[16:], X[:16])
    expected = across @ np.linalg.solve(gram + 0.1 * np.eye(16), values[:16])
    mean, deviation = fitted.predict(X[16:], return_std=True)
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    assert (deviation >= 0).all()


@processes
def test_a_gaussian_process_classifier_computes_one_gram_matrix(data, composed, grams):
    network, X, labels, _ = data
    kernel = composed(Counting(network))
    fitted = GaussianProcessClassifier(kernel, random_state=0).fit(X[:16], labels[:16])
    assert Counting.grams <= grams
    probabilities = fitted.predict_proba(X[16:])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_the_kept_gram_matrix_is_used_only_for_the_same_samples_network_and_parameters(data):
    network, X, *_ = data
    kernel = Counting(network)
    gram = kernel(X, eval_gradient=True)[0]
    gram[:] = 0
    np.testing.assert_array_equal(kernel(X.copy()), NetworkKernel(network)(X))
    assert Counting.grams == 1
    np.testing.assert_array_equal(kernel(X[:5]), NetworkKernel(network)(X[:5]))
    next(network.parameters()).data += 0.1
    np.testing.assert_array_equal(kernel(X), NetworkKernel(network)(X))
    kernel.set_params(output="predicted")
    np.testing.assert_array_equal(kernel(X), NetworkKernel(network, "predicted")(X))


def test_the_kept_gram_matrix_is_not_used_for_other_columns(data):
    network, X, *_ = data
    kernel = NetworkKernel(network)
    kernel(X, eval_gradient=True)
    expected = NetworkKernel(network)(X, X[:3])
    np.testing.assert_array_equal(kernel(X, X[:3]), expected)
    np.testing.assert_array_equal(kernel(X, X[:3], eval_gradient=True)[0], expected)


def test_a_gram_matrix_is_kept_only_with_its_gradient_and_not_in_copies(data):
    network, X, *_ = data
    kernel = Counting(network)
    kernel(X)
    kernel(X)
    assert Counting.grams == 2
    kernel(X, eval_gradient=True)
    assert not hasattr(pickle.loads(pickle.dumps(kernel)), "_last")
    assert not hasattr(clone(kernel), "_last")


@pytest.mark.parametrize("params", [{}, {"normalize": False}, {"metric": "rotation"}], ids=str)
def test_a_call_with_two_samples_returns_their_similarity(data, params):
    network, X, *_ = data
    kernel = NetworkKernel(network, **params)
    expected = NetworkKernel(network, **params)(X[:4])
    actual = [[kernel(row, other) for other in X[:4]] for row in X[:4]]
    np.testing.assert_allclose(actual, expected, atol=1e-8)
    assert isinstance(kernel(X[0], X[1]), float)


def make_metric(kernel):
    """Return the distance of two samples, as a metric for scikit-learn's neighbours."""
    return lambda row, other: max(0, 2 - 2 * kernel(row, other)) ** 0.5


@pytest.mark.parametrize("algorithm", ["brute", "ball_tree"])
def test_a_metric_from_the_kernel_finds_the_same_neighbors(data, algorithm):
    network, X, *_ = data
    metric = make_metric(NetworkKernel(network))
    actual = NearestNeighbors(n_neighbors=3, algorithm=algorithm, metric=metric).fit(X)
    expected = NetworkNeighbors(network, n_neighbors=3).fit(X)
    np.testing.assert_array_equal(
        actual.kneighbors(return_distance=False), expected.kneighbors(return_distance=False)
    )


def test_a_metric_computes_the_jacobian_of_each_sample_once(data, monkeypatch):
    network, X, *_ = data
    calls = []

    def count(*args):
        calls.append(args)
        return iterate_chunks(*args)

    monkeypatch.setattr("sknetsim.estimators._base_kernel.iterate_chunks", count)
    pairwise_distances(X, metric=make_metric(NetworkKernel(network)))
    assert len(calls) == len(X)


def test_single_samples_are_computed_again_after_a_change(data):
    network, X, *_ = data
    kernel = NetworkKernel(network)
    kernel(X[0], X[1])
    kernel.set_params(output="predicted")
    expected = NetworkKernel(network, "predicted")(X[:2])[0, 1]
    assert kernel(X[0], X[1]) == pytest.approx(expected)
    next(network.parameters()).data.mul_(1.5)
    expected = NetworkKernel(network, "predicted")(X[:2])[0, 1]
    assert kernel(X[0], X[1]) == pytest.approx(expected)


def refit(net, kernel, X, y):
    kernel.fit(X, y[::-1].copy())


def train_again(net, kernel, X, y):
    net.fit(X, y[::-1].copy())


def replace_weights(net, kernel, X, y):
    layer = net.module_[0]
    layer.weight.data = layer.weight.data + 1


@pytest.mark.parametrize("change", [refit, train_again, replace_weights])
def test_single_samples_are_computed_again_after_training(data, change):
    """The network is trained in fit, trained again, or gets other weights."""
    _, X, labels, _ = data
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double(),
        criterion=nn.CrossEntropyLoss,
        verbose=0,
        lr=0.5,
        train_split=None,
    )
    net = net if change is refit else net.fit(X, labels)
    kernel = NetworkKernel(net).fit(X, labels)
    kernel(X[0], X[1])
    change(net, kernel, X, labels)
    assert kernel(X[0], X[1]) == pytest.approx(kernel(X[:2])[0, 1])


def test_cached_samples_stay_within_the_memory_budget(data):
    import sklearn

    network, X, *_ = data
    kernel = NetworkKernel(network)
    with sklearn.config_context(working_memory=0.001):
        actual = [kernel(X[0], row) for row in X]
    np.testing.assert_allclose(actual, NetworkKernel(network)(X)[0], atol=1e-8)
    assert len(kernel._rows[1]._chunks) < len(X)


def test_a_pipeline_of_the_kernel_and_a_precomputed_machine_equals_the_machine(data):
    network, X, _, values = data
    piped = make_pipeline(NetworkKernel(network), KernelRidge(kernel="precomputed"))
    direct = KernelRidge(kernel=NetworkKernel(network))
    expected = direct.fit(X[:16], values[:16]).predict(X[16:])
    np.testing.assert_allclose(piped.fit(X[:16], values[:16]).predict(X[16:]), expected, atol=1e-8)
    search = GridSearchCV(piped, {"kernelridge__alpha": [0.1, 1.0]}, cv=3).fit(X, values)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
