"""NetworkKernel compared with naive Jacobians."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVC
from torch import nn

from sknetsim import NetworkKernel, ZeroGradientWarning

from .. import naive
from ..cases import NETWORKS, build


@pytest.fixture
def data():
    return build(NETWORKS[0], n_samples=12)


def test_influence_is_the_change_by_a_small_step():
    """A small step along the gradient of one sample changes the outputs at all samples."""
    network, X = build(NETWORKS[1])
    influence = NetworkKernel(network).influence(X)
    J, epsilon = naive.jacobians(network, X)[:, 0], 1e-6
    before = network(X).detach()[:, 0].numpy()
    for index in range(len(X)):
        stepped = build(NETWORKS[1])[0]
        step = torch.as_tensor(epsilon * J[index] / (J[index] @ J[index]))
        start = 0
        for parameter in stepped.parameters():
            stop = start + parameter.numel()
            parameter.data += step[start:stop].view_as(parameter)
            start = stop
        change = (stepped(X).detach()[:, 0].numpy() - before) / epsilon
        np.testing.assert_allclose(influence[index], change, atol=1e-4)


def test_influence_on_itself_is_one(data):
    network, X = data
    actual = NetworkKernel(network).influence(X)
    np.testing.assert_allclose(actual[range(12), range(12)], [np.eye(3)] * 12, atol=1e-8)


@pytest.mark.parametrize("metric", ["trace", "rotation", "orthogonal"])
@pytest.mark.parametrize("normalize", [True, False])
def test_diag_is_the_diagonal_of_the_gram_matrix(data, metric, normalize):
    network, X = data
    kernel = NetworkKernel(network, metric=metric, normalize=normalize)
    np.testing.assert_allclose(kernel.diag(X), np.diag(kernel(X)), rtol=1e-8)


def test_rotation_ignores_a_rotation_of_one_samples_outputs():
    network, X = build(NETWORKS[0])
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    J = naive.jacobians(network, X, lambda raw: raw[:, :2])
    KC = naive.normalized_kernel(J[:1], turn @ J[1:], 1e-16)[0]
    values, sign = np.linalg.svd(KC, compute_uv=False), np.sign(np.linalg.det(KC))
    expected = (values[..., 0] + sign * values[..., 1]) / 2
    actual = NetworkKernel(network, output=[0, 1], metric="rotation")(X[:1], X[1:])
    np.testing.assert_allclose(actual, expected, atol=1e-8)


def test_unnormalised_kernel_is_the_mean_over_outputs(data):
    network, X = data
    J = naive.jacobians(network, X)
    expected = np.einsum("nop,mop->nm", J, J) / 3
    np.testing.assert_allclose(NetworkKernel(network, normalize=False)(X), expected, rtol=1e-8)


def test_features_are_compared_by_their_inner_products():
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [0.3, 0.0]])
    kernel = NetworkKernel("features")
    np.testing.assert_allclose(kernel(rows), rows @ rows.T)
    np.testing.assert_allclose(kernel.diag(rows), (rows**2).sum(axis=1))


def test_a_gaussian_process_accepts_the_kernel_and_sums_of_it(data):
    network, X = data
    y = X[:, 0].numpy()
    gram = NetworkKernel(network)(X)
    alone = GaussianProcessRegressor(NetworkKernel(network), alpha=0.1).fit(X, y)
    expected = gram @ np.linalg.solve(gram + 0.1 * np.eye(12), y)
    np.testing.assert_allclose(alone.predict(X), expected, atol=1e-6)
    summed = GaussianProcessRegressor(1.0 * NetworkKernel(network) + WhiteKernel()).fit(X, y)
    mean, deviation = summed.predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert (deviation >= 0).all()


def test_pairwise_kernels_calls_the_kernel_once(data):
    network, X = data
    calls = []

    class Counting(NetworkKernel):
        def __call__(self, X, Y=None, eval_gradient=False):
            calls.append(len(X))
            return super().__call__(X, Y, eval_gradient)

    gram = pairwise_kernels(X.numpy(), metric=Counting(network))
    np.testing.assert_allclose(gram, NetworkKernel(network)(X), atol=1e-10)
    assert calls == [12]


def test_the_gradient_has_no_hyper_parameters(data):
    network, X = data
    gram, gradient = NetworkKernel(network)(X, eval_gradient=True)
    assert gradient.shape == (*gram.shape, 0)
    assert NetworkKernel(network).theta.size == 0


def test_the_kernel_has_a_repr_and_can_be_cloned(data):
    network, _ = data
    kernel = NetworkKernel(network, metric="rotation")
    assert "NetworkKernel" in repr(kernel)
    assert "NetworkKernel" in repr(SVC(kernel=kernel))
    assert clone(SVC(kernel=kernel)).kernel.estimator is network
    assert kernel == clone(kernel)
    assert not kernel.is_stationary()


def test_a_sample_with_a_zero_gradient_is_zero_in_every_quantity():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, bias=False)).double()
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.zero_()
    X = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
    for normalize in (True, False):
        kernel = NetworkKernel(network, normalize=normalize)
        with pytest.warns(ZeroGradientWarning, match="1 of 2 samples"):
            values = [kernel(X), kernel.matrix(X), kernel.influence(X)]
        assert all(np.isfinite(value).all() for value in values)
        assert all((value[1] == 0).all() for value in values)
        assert kernel.diag(X)[1] == 0
