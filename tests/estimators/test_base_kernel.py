"""scikit-learn's kernel machines, and how often each calls the kernel."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import SpectralClustering
from sklearn.decomposition import KernelPCA
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import pairwise_distances, pairwise_kernels
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim import (
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
)
from sknetsim.estimators import _base_kernel

from ..cases import NETWORKS, build


class Counting(NetworkKernel):
    """A kernel that tells how often it was called, and how many grams it made."""

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


# Of (kernel, gram): the machine, the same one on a gram, calls in fit.
SVMS = {
    "SVC": (SVC, 1),
    "NuSVC": (NuSVC, 1),
    "SVR": (SVR, 1),
    "OneClassSVM": (OneClassSVM, 1),
}
RIDGE = {"KernelRidge": (KernelRidge, 1)}


@pytest.mark.parametrize(("machine", "calls"), {**SVMS, **RIDGE}.values(), ids={**SVMS, **RIDGE})
def test_a_machine_calls_it_once_in_fit_and_once_in_predict(data, machine, calls):
    network, X, labels, values = data
    y = values if machine in (SVR, KernelRidge) else labels
    gram = NetworkKernel(network)(X)
    expected = machine(kernel="precomputed").fit(gram[:16, :16], y[:16]).predict(gram[16:, :16])
    fitted = machine(kernel=Counting(network)).fit(X[:16], y[:16])
    assert Counting.calls == calls
    np.testing.assert_allclose(fitted.predict(X[16:]), expected, atol=1e-8)
    assert Counting.calls == 2 * calls


def test_kernel_pca_calls_it_once(data):
    network, X, *_ = data
    expected = KernelPCA(3, kernel="precomputed").fit_transform(NetworkKernel(network)(X))
    found = KernelPCA(3, kernel=Counting(network)).fit_transform(X)
    assert Counting.calls == 1
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-7)


def test_nystroem_calls_it_once_in_fit_and_once_in_transform(data):
    network, X, *_ = data
    found = Nystroem(Counting(network), n_components=24, random_state=0).fit_transform(X)
    assert Counting.calls == 2
    np.testing.assert_allclose(found @ found.T, NetworkKernel(network)(X), atol=1e-6)


def test_spectral_clustering_calls_it_once(data):
    network, X, *_ = data
    params = {"n_clusters": 2, "random_state": 0}
    gram = np.exp(NetworkKernel(network)(X))
    expected = SpectralClustering(affinity="precomputed", **params).fit_predict(gram)

    class Positive(Counting):
        def __call__(self, X, Y=None, eval_gradient=False):
            return np.exp(super().__call__(X, Y, eval_gradient))

    found = SpectralClustering(affinity=Positive(network), **params).fit_predict(X)
    assert Counting.calls == 1
    assert (found == expected).all() or (found != expected).all()


PROCESSES = {
    "alone": (lambda kernel: kernel, 2),
    "scaled": (lambda kernel: 2.0 * kernel, 1),
    "with noise": (lambda kernel: kernel + WhiteKernel(), 1),
    "scaled, with noise": (lambda kernel: 1.0 * kernel + WhiteKernel(), 1),
}
processes = pytest.mark.parametrize(("composed", "grams"), PROCESSES.values(), ids=PROCESSES)


@processes
def test_a_gaussian_process_regressor_makes_one_gram(data, composed, grams):
    """Where something is tuned the gradient is asked for, and the gram kept."""
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
def test_a_gaussian_process_classifier_makes_one_gram(data, composed, grams):
    network, X, labels, _ = data
    kernel = composed(Counting(network))
    fitted = GaussianProcessClassifier(kernel, random_state=0).fit(X[:16], labels[:16])
    assert Counting.grams <= grams
    probabilities = fitted.predict_proba(X[16:])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_the_kept_gram_is_of_these_bytes(data):
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


def test_other_columns_are_not_taken_for_the_kept_gram(data):
    network, X, *_ = data
    kernel = NetworkKernel(network)
    kernel(X, eval_gradient=True)
    expected = NetworkKernel(network)(X, X[:3])
    np.testing.assert_array_equal(kernel(X, X[:3]), expected)
    np.testing.assert_array_equal(kernel(X, X[:3], eval_gradient=True)[0], expected)


def test_no_gram_is_kept_for_others(data):
    network, X, *_ = data
    kernel = Counting(network)
    kernel(X)
    kernel(X)
    assert Counting.grams == 2
    kernel(X, eval_gradient=True)
    assert not hasattr(pickle.loads(pickle.dumps(kernel)), "_last")
    assert not hasattr(clone(kernel), "_last")


@pytest.mark.parametrize("params", [{}, {"normalize": False}, {"metric": "rotation"}], ids=str)
def test_as_a_metric_it_is_the_similarity_of_two_rows(data, params):
    network, X, *_ = data
    kernel = NetworkKernel(network, **params)
    expected = NetworkKernel(network, **params)(X[:4])
    found = [[kernel(row, other) for other in X[:4]] for row in X[:4]]
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert isinstance(kernel(X[0], X[1]), float)


def distance_of(kernel):
    """A metric, as scikit-learn's neighbours take one."""
    return lambda row, other: max(0, 2 - 2 * kernel(row, other)) ** 0.5


@pytest.mark.parametrize("algorithm", ["brute", "ball_tree"])
def test_as_a_metric_it_finds_the_neighbors(data, algorithm):
    network, X, *_ = data
    metric = distance_of(NetworkKernel(network))
    found = NearestNeighbors(n_neighbors=3, algorithm=algorithm, metric=metric).fit(X)
    expected = NetworkNeighbors(network, n_neighbors=3).fit(X)
    np.testing.assert_array_equal(
        found.kneighbors(return_distance=False), expected.kneighbors(return_distance=False)
    )


def test_as_a_metric_each_row_is_made_once(data, monkeypatch):
    network, X, *_ = data
    made, chunks = [], _base_kernel.iterate_chunks
    monkeypatch.setattr(
        _base_kernel, "iterate_chunks", lambda *args: made.append(1) or chunks(*args)
    )
    pairwise_distances(X, metric=distance_of(NetworkKernel(network)))
    assert len(made) == len(X)


def test_as_a_metric_it_notices_what_has_changed(data):
    network, X, *_ = data
    kernel = NetworkKernel(network)
    kernel(X[0], X[1])
    kernel.set_params(output="predicted")
    expected = NetworkKernel(network, "predicted")(X[:2])[0, 1]
    assert kernel(X[0], X[1]) == pytest.approx(expected)
    next(network.parameters()).data.mul_(1.5)
    expected = NetworkKernel(network, "predicted")(X[:2])[0, 1]
    assert kernel(X[0], X[1]) == pytest.approx(expected)


def refitted(net, kernel, X, y):
    kernel.fit(X, y[::-1].copy())


def trained_again(net, kernel, X, y):
    net.fit(X, y[::-1].copy())


def other_storage(net, kernel, X, y):
    layer = net.module_[0]
    layer.weight.data = layer.weight.data + 1


@pytest.mark.parametrize("changed", [refitted, trained_again, other_storage])
def test_as_a_metric_it_follows_the_network(data, changed):
    """Where the network is trained in fit, trained again, or given other weights."""
    _, X, labels, _ = data
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double(),
        criterion=nn.CrossEntropyLoss,
        verbose=0,
        lr=0.5,
        train_split=None,
    )
    net = net if changed is refitted else net.fit(X, labels)
    kernel = NetworkKernel(net).fit(X, labels)
    kernel(X[0], X[1])
    changed(net, kernel, X, labels)
    assert kernel(X[0], X[1]) == pytest.approx(kernel(X[:2])[0, 1])


def test_as_a_metric_it_keeps_within_the_budget(data):
    import sklearn

    network, X, *_ = data
    kernel = NetworkKernel(network)
    with sklearn.config_context(working_memory=0.001):
        found = [kernel(X[0], row) for row in X]
    np.testing.assert_allclose(found, NetworkKernel(network)(X)[0], atol=1e-8)
    assert len(kernel._rows[1]._chunks) < len(X)


def test_as_a_transformer_before_a_precomputed_machine(data):
    network, X, _, values = data
    piped = make_pipeline(NetworkKernel(network), KernelRidge(kernel="precomputed"))
    direct = KernelRidge(kernel=NetworkKernel(network))
    expected = direct.fit(X[:16], values[:16]).predict(X[16:])
    np.testing.assert_allclose(piped.fit(X[:16], values[:16]).predict(X[16:]), expected, atol=1e-8)
    search = GridSearchCV(piped, {"kernelridge__alpha": [0.1, 1.0]}, cv=3).fit(X, values)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.fixture
def images():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 3, 2)
    ).double()
    return network, torch.randn(14, 2, 6, 5, dtype=torch.float64).numpy()


SHAPED = {
    "kernel": (NetworkKernel, "transform", {}),
    "perceptual": (PerceptualKernel, "transform", {}),
    "density": (NetworkDensity, "score_samples", {}),
    "power density": (NetworkDensity, "score_samples", {"method": "power", "dimension": 3.0}),
    "neighbors": (NetworkNeighbors, "kneighbors", {}),
    "features": (GradientFeaturizer, "transform", {}),
    "landmarks": (GradientFeaturizer, "transform", {"n_components": 3, "random_state": 0}),
}


@pytest.mark.parametrize(("kind", "method", "params"), SHAPED.values(), ids=SHAPED)
def test_flat_rows_get_their_shape_back(images, kind, method, params):
    network, X = images
    flat = X.reshape(14, -1)
    expected = getattr(kind(network, **params).fit(X), method)(X)
    shaped = kind(network, input_shape=(2, 6, 5), **params).fit(flat)
    np.testing.assert_allclose(getattr(shaped, method)(flat), expected, atol=1e-12)


def test_images_in_machines_that_take_matrices_only(images):
    network, X = images
    flat, y = X.reshape(14, -1), X[:, 0, 0, 0]
    kernel = NetworkKernel(network, input_shape=(2, 6, 5))
    expected = KernelRidge(kernel="precomputed").fit(NetworkKernel(network)(X), y).dual_coef_
    np.testing.assert_allclose(KernelRidge(kernel=kernel).fit(flat, y).dual_coef_, expected)
    np.testing.assert_allclose(pairwise_kernels(flat, metric=kernel), NetworkKernel(network)(X))
    assert kernel(flat[0], flat[1]) == pytest.approx(NetworkKernel(network)(X[:2])[0, 1])


def test_a_pipelines_own_steps_see_flat_rows(images):
    network, X = images
    flat = X.reshape(14, -1)
    net = NeuralNetRegressor(network, verbose=0).initialize()
    piped = FrozenEstimator(make_pipeline(StandardScaler().fit(flat), net))
    scaled = StandardScaler().fit_transform(flat).reshape(X.shape)
    expected = NetworkKernel(network)(scaled)
    np.testing.assert_allclose(NetworkKernel(piped, input_shape=(2, 6, 5))(flat), expected)


def test_an_untrained_net_is_trained_on_rows_in_their_shape(images):
    network, X = images
    net = NeuralNetRegressor(network, verbose=0, max_epochs=1, train_split=None)
    density = NetworkDensity(net, input_shape=(2, 6, 5))
    assert np.isfinite(density.fit(X.reshape(14, -1), X[:, 0, 0, :2]).score(X.reshape(14, -1)))


def test_a_step_that_changes_the_width(images):
    network, X = images
    wide = np.hstack([X.reshape(14, -1), X.reshape(14, -1)])
    halved = FunctionTransformer(lambda rows: rows[:, :60]).fit(wide)
    net = NeuralNetRegressor(network, verbose=0).initialize()
    kernel = NetworkKernel(make_pipeline(halved, net), input_shape=(2, 6, 5)).fit(wide)
    np.testing.assert_allclose(kernel.transform(wide), NetworkKernel(network)(X))


@pytest.mark.parametrize("untrained", [None, "pipeline"])
def test_an_input_shape_is_for_networks_that_are_trained_alone(images, untrained):
    network, X = images
    if untrained is not None:
        untrained = make_pipeline(StandardScaler(), NeuralNetRegressor(network, verbose=0))
    with pytest.raises(ValueError, match=r"`input_shape` is given; got .*=\(2, 6, 5\)"):
        NetworkKernel(untrained, input_shape=(2, 6, 5)).fit(X.reshape(14, -1), X[:, 0, 0, :2])


def test_a_wrong_input_shape_is_refused(images):
    network, X = images
    with pytest.raises(ValueError, match=r"input_shape.*\(60,\); got \(2, 6, 6\), of 72 values"):
        NetworkKernel(network, input_shape=(2, 6, 6))(X.reshape(14, -1))


def test_flat_rows_without_a_shape_are_refused_with_the_cure(images):
    network, X = images
    with pytest.raises(ValueError, match="input_shape"):
        NetworkKernel(network)(X.reshape(14, -1))
