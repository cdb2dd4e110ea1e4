"""Estimators with a third-party MNIST network."""

import numpy as np
import pytest

from sknetsim import NetworkDensity, NetworkKernel, NetworkNeighbors

from . import naive
from .real import digit_recognizer, mnist


@pytest.fixture(scope="module")
def network():
    return digit_recognizer()


@pytest.mark.parametrize("output", ["all", "predicted"])
def test_the_kernel_equals_the_double_loop(network, output):
    X, _ = mnist("test", 5)
    select = (lambda raw: raw) if output == "all" else (lambda raw: raw.max())
    actual = NetworkKernel(network, output)(X)
    J = naive.jacobians(network.double(), X.double(), select)
    expected = naive.correlation(J, J, np.finfo(np.float32).eps)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    network.float()


@pytest.mark.slow
def test_most_nearest_neighbors_show_the_same_digit(network):
    X, y = mnist("train", 600)
    queries, labels = mnist("test", 60)
    actual = NetworkNeighbors(network, "predicted").fit(X).kneighbors(queries, 1)[1][:, 0]
    assert (y[actual] == labels).double().mean() > 0.8


@pytest.mark.slow
def test_noise_images_are_less_dense_than_digits(network):
    X, _ = mnist("train", 300)
    digits, _ = mnist("test", 50)
    density = NetworkDensity(network, "predicted", method="power", alpha=16).fit(X)
    noise = digits.flatten()[np.random.default_rng(0).permutation(digits.numel())]
    noisy = density.score_samples(noise.view_as(digits))
    assert np.median(noisy) < np.quantile(density.score_samples(digits), 0.1)
