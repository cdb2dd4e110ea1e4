"""Parameters that all estimators share: ``input_shape`` and ``n_components``."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import (
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
)

from ..cases import NETWORKS, build


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
def test_input_shape_reshapes_flat_samples(images, kind, method, params):
    network, X = images
    flat = X.reshape(14, -1)
    expected = getattr(kind(network, **params).fit(X), method)(X)
    shaped = kind(network, input_shape=(2, 6, 5), **params).fit(flat)
    np.testing.assert_allclose(getattr(shaped, method)(flat), expected, atol=1e-12)


def test_images_pass_as_flat_samples_through_kernel_machines(images):
    network, X = images
    flat, y = X.reshape(14, -1), X[:, 0, 0, 0]
    kernel = NetworkKernel(network, input_shape=(2, 6, 5))
    expected = KernelRidge(kernel="precomputed").fit(NetworkKernel(network)(X), y).dual_coef_
    np.testing.assert_allclose(KernelRidge(kernel=kernel).fit(flat, y).dual_coef_, expected)
    np.testing.assert_allclose(pairwise_kernels(flat, metric=kernel), NetworkKernel(network)(X))
    assert kernel(flat[0], flat[1]) == pytest.approx(NetworkKernel(network)(X[:2])[0, 1])


def test_the_steps_of_a_pipeline_get_flat_samples(images):
    network, X = images
    flat = X.reshape(14, -1)
    net = NeuralNetRegressor(network, verbose=0).initialize()
    piped = FrozenEstimator(make_pipeline(StandardScaler().fit(flat), net))
    scaled = StandardScaler().fit_transform(flat).reshape(X.shape)
    expected = NetworkKernel(network)(scaled)
    np.testing.assert_allclose(NetworkKernel(piped, input_shape=(2, 6, 5))(flat), expected)


def test_an_untrained_net_is_trained_on_reshaped_samples(images):
    network, X = images
    net = NeuralNetRegressor(network, verbose=0, max_epochs=1, train_split=None)
    density = NetworkDensity(net, input_shape=(2, 6, 5))
    assert np.isfinite(density.fit(X.reshape(14, -1), X[:, 0, 0, :2]).score(X.reshape(14, -1)))


def test_samples_are_reshaped_after_a_step_that_changes_their_width(images):
    network, X = images
    wide = np.hstack([X.reshape(14, -1), X.reshape(14, -1)])
    halved = FunctionTransformer(lambda rows: rows[:, :60]).fit(wide)
    net = NeuralNetRegressor(network, verbose=0).initialize()
    kernel = NetworkKernel(make_pipeline(halved, net), input_shape=(2, 6, 5)).fit(wide)
    np.testing.assert_allclose(kernel.transform(wide), NetworkKernel(network)(X))


@pytest.mark.parametrize("untrained", [None, "pipeline"])
def test_input_shape_raises_an_error_for_an_untrained_pipeline_or_none(images, untrained):
    network, X = images
    if untrained is not None:
        untrained = make_pipeline(StandardScaler(), NeuralNetRegressor(network, verbose=0))
    with pytest.raises(ValueError, match=r"`input_shape` is given; got .*=\(2, 6, 5\)"):
        NetworkKernel(untrained, input_shape=(2, 6, 5)).fit(X.reshape(14, -1), X[:, 0, 0, :2])


def test_a_wrong_input_shape_raises_an_error(images):
    network, X = images
    with pytest.raises(ValueError, match=r"input_shape.*\(60,\); got \(2, 6, 6\), of 72 values"):
        NetworkKernel(network, input_shape=(2, 6, 6))(X.reshape(14, -1))


def test_the_error_of_flat_samples_suggests_input_shape(images):
    network, X = images
    with pytest.raises(ValueError, match="input_shape"):
        NetworkKernel(network)(X.reshape(14, -1))


#: Estimators that compare features if they have ``n_components``: class, parameters and method.
BY_FEATURES = {
    "soft density": (NetworkDensity, {}, "score_samples"),
    "power": (NetworkDensity, {"method": "power"}, "neighbor_count"),
    "threshold": (NetworkDensity, {"method": "threshold", "threshold": 0.5}, "neighbor_count"),
    "neighbours": (NetworkNeighbors, {"n_neighbors": 3}, "kneighbors"),
    "labels": (LabelDenoiser, {"alpha": 2.0}, "transform"),
}


@pytest.mark.parametrize("name", BY_FEATURES)
def test_n_components_is_the_same_as_fitting_to_features(name):
    network, X = build(NETWORKS[0], n_samples=15)
    estimator, params, method = BY_FEATURES[name]
    y = np.arange(len(X)) % 3
    same = {"n_components": 5, "random_state": 0}
    features = GradientFeaturizer(network, **same).fit_transform(X)
    inside = getattr(estimator(network, **same, **params).fit(X, y), method)(X)
    outside = getattr(estimator("features", **params).fit(features, y), method)(features)
    np.testing.assert_allclose(inside, outside, atol=1e-9)
