"""Outputs that the whitening drops: results, warnings, and networks that must not cause any."""

import copy
import warnings

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import DroppedOutputsWarning, GradientFeaturizer, NetworkDensity, NetworkKernel

from .. import naive

FLOAT32, FLOAT64 = (np.finfo(dtype).eps for dtype in (np.float32, np.float64))


class Apply(nn.Module):
    """Module that applies a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, outputs):
        return self.function(outputs)


def make_heads(scale, outputs=2):
    """Return a network whose last output is multiplied by a scale, and 8 samples."""
    body = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, outputs))
    scales = torch.cat([torch.ones(outputs - 1), torch.tensor([scale])])
    return nn.Sequential(body, Apply(lambda raw: raw * scales.to(raw))), torch.randn(8, 5)


def make_sigmoid():
    """Return a network with more and less saturated outputs, and 20 samples."""
    network = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3), Apply(sharpen))
    return network, torch.randn(20, 5)


def sharpen(outputs):
    return torch.sigmoid(-outputs.abs() * outputs.new_tensor([1, 10, 40]))


def record_warnings(function):
    """Return the result of a function and its warnings of dropped outputs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    return result, [str(w.message) for w in caught if w.category is DroppedOutputsWarning]


@pytest.mark.parametrize(
    ("scale", "number"), [(1, 0), (1e-2, 0), (2e-3, 0), (1e-3, 1), (1e-4, 1), (1e-6, 1)]
)
def test_a_head_of_another_scale_is_dropped_with_a_warning(scale, number):
    network, X = make_heads(scale)
    gram, messages = record_warnings(lambda: NetworkKernel(network)(X))
    J = naive.jacobians(copy.deepcopy(network).double(), X.double())
    np.testing.assert_allclose(gram, naive.correlation(J, J, FLOAT32), atol=1e-4)
    assert len(messages) == number
    assert all("8 of 8 samples have dropped outputs, up to 1 of 2" in text for text in messages)


def test_a_float64_network_keeps_the_head_without_a_warning():
    network, X = make_heads(1e-6)
    network, X = network.double(), X.double()
    gram, messages = record_warnings(lambda: NetworkKernel(network)(X))
    J = naive.jacobians(network, X)
    np.testing.assert_allclose(gram, naive.correlation(J, J, FLOAT64), atol=1e-6)
    assert not messages


@pytest.mark.parametrize("metric", ["rotation", "orthogonal"])
def test_metrics_ignore_an_invertible_matrix_until_an_output_is_dropped(metric):
    network, X = make_heads(1)
    expected = NetworkKernel(network, metric=metric)(X)
    for scale, moves in ((1e-2, False), (1e-4, True)):
        network[1] = Apply(lambda raw, scale=scale: raw * torch.tensor([1, scale]))
        kernel = NetworkKernel(network, metric=metric)
        gram, messages = record_warnings(lambda kernel=kernel: kernel(X))
        assert np.allclose(gram, expected, atol=1e-4) is not moves
        assert bool(messages) is moves


def test_saturated_outputs_are_counted_by_sample():
    network, X = make_sigmoid()
    _, messages = record_warnings(lambda: NetworkKernel(network)(X))
    J = naive.jacobians(copy.deepcopy(network).double(), X.double())
    ratios = np.stack([values / values[-1] for values in np.linalg.eigvalsh(J @ J.swapaxes(1, 2))])
    dropped = ((ratios > 25 * FLOAT32**2) & (ratios <= 30 * FLOAT32)).sum(axis=1)
    count = np.count_nonzero(dropped)
    assert 0 < count < 20
    (message,) = messages
    assert f"At least {count} of 20 samples" in message
    assert f"up to {dropped.max()} of 3" in message


def compute_with_workers(network, X):
    with joblib.parallel_config(backend="threading"):
        return NetworkKernel(network, n_jobs=2)(X)


QUANTITIES = {
    "kernel": lambda network, X: NetworkKernel(network)(X),
    "kernel of two sets": lambda network, X: NetworkKernel(network)(X, X[:3]),
    "matrix": lambda network, X: NetworkKernel(network).matrix(X),
    "influence": lambda network, X: NetworkKernel(network).influence(X),
    "diagonal": lambda network, X: NetworkKernel(network).diag(X),
    "sums": lambda network, X: NetworkDensity(network).fit(X),
    "workers": compute_with_workers,
    "features": lambda network, X: GradientFeaturizer(network, method="exact").fit_transform(X),
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_each_pass_warns_once(name):
    network, X = make_heads(1e-4)
    _, messages = record_warnings(lambda: QUANTITIES[name](network, X))
    (message,) = messages
    assert "8 of 8 samples" in message


def test_nothing_is_dropped_without_a_whitening():
    network, X = make_heads(1e-4)
    for metric in ("trace", "orthogonal"):
        kernel = NetworkKernel(network, normalize=False, metric=metric)
        assert not record_warnings(lambda kernel=kernel: (kernel(X), kernel.diag(X)))[1]


def make_network(*last, outputs=6):
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, outputs), *last)


def freeze(layer):
    return layer.requires_grad_(False)


FULL_OR_EXACTLY_SINGULAR = {
    "logits": make_network,
    "softmax": lambda: make_network(nn.Softmax(1)),
    "log-softmax": lambda: make_network(nn.LogSoftmax(1)),
    "confident log-softmax": lambda: make_network(Apply(lambda z: z * 40), nn.LogSoftmax(1)),
    "normalised": lambda: make_network(Apply(lambda z: nn.functional.normalize(z))),
    "centred": lambda: make_network(Apply(lambda z: z - z.mean(1, keepdim=True))),
    "repeated": lambda: make_network(Apply(lambda z: torch.cat([z, 3 * z], 1))),
    "rectified": lambda: make_network(nn.ReLU()),
    "frozen decoder": lambda: nn.Sequential(nn.Linear(5, 3), freeze(nn.Linear(3, 50))),
    "frozen decoder of rectified values": lambda: nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), freeze(nn.Linear(8, 10))
    ),
    "frozen decoder of two layers": lambda: nn.Sequential(
        nn.Linear(5, 3), nn.Tanh(), freeze(nn.Linear(3, 30)), nn.Tanh(), freeze(nn.Linear(30, 12))
    ),
    "many layers": lambda: nn.Sequential(
        nn.Linear(5, 16),
        *[layer for _ in range(20) for layer in (nn.Linear(16, 16), nn.Tanh())],
        nn.Linear(16, 6),
        nn.LogSoftmax(1),
    ),
}


@pytest.mark.filterwarnings("ignore::sknetsim.SoftmaxOutputWarning")
@pytest.mark.parametrize("name", FULL_OR_EXACTLY_SINGULAR)
def test_outputs_that_depend_on_each_other_are_not_dropped(name):
    network = FULL_OR_EXACTLY_SINGULAR[name]()
    _, messages = record_warnings(lambda: NetworkKernel(network)(torch.randn(40, 5)))
    assert not messages
