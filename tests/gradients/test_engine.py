"""The engine against a double loop of autograd.grad, for all layers and networks."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import (
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    UnsupportedNetworkError,
    ZeroGradientWarning,
)
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim.rules import _registry

from ..cases import LAYERS, NETWORKS, build
from .quantities import TOLERANCES, check_quantities, expected_jacobians

dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


cases = pytest.mark.parametrize("case", LAYERS + NETWORKS, ids=lambda case: case.name)


@pytest.fixture
def without_rules(monkeypatch):
    for registry in ("_layers", "_functions", "_decompositions", "_recurrences"):
        monkeypatch.setattr(_registry, registry, {})


@cases
@dtypes
def test_quantities_equal_the_double_loop(case, dtype):
    check_quantities(case, dtype)


@cases
def test_quantities_without_rules_equal_the_double_loop(case, without_rules):
    check_quantities(case, torch.float64)


layers = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)


@layers
def test_each_layer_is_served_by_its_rule(case):
    network, X = build(case)
    engine = GradientEngine(resolve_network(network))
    list(engine.jacobians(Samples(X)))
    assert engine.unserved == {}


@cases
def test_jacobians_are_in_the_order_of_the_parameters(case):
    network, X = build(case)
    engine = GradientEngine(resolve_network(network), case.output)
    J = torch.cat([jacobian.materialize() for _, jacobian in engine.jacobians(Samples(X))])
    np.testing.assert_allclose(J, expected_jacobians(case, network, X), atol=1e-10)


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_batch_size_and_order_do_not_matter(case):
    network, X = build(case, n_samples=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    expected = NetworkKernel(network, case.output)(X)
    for batch_size in (1, 7, 9):
        kernel = NetworkKernel(network, case.output, batch_size=batch_size)
        np.testing.assert_allclose(kernel(X), expected, atol=1e-10)
    shuffled = NetworkKernel(network, case.output, batch_size=4)(X[order])
    np.testing.assert_allclose(shuffled, expected[order][:, order], atol=1e-10)


def test_zero_gradients_are_reported_and_have_zero_similarity():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.zero_()
    X = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [-3.0, 0.0]])
    with pytest.warns(ZeroGradientWarning, match="2 of 3 samples"):
        gram = NetworkKernel(network)(X)
    np.testing.assert_allclose(gram, [[1, 0, 0], [0, 0, 0], [0, 0, 0]], atol=1e-6)


class Rooted(nn.Module):
    """Network with a square root, whose gradient at zero is not finite."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 4, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, rows):
        return self.head(self.body(rows).abs().sqrt())


@pytest.mark.parametrize("estimator", [NetworkKernel(), NetworkDensity(), NetworkNeighbors()])
def test_infinite_gradients_raise_an_error(estimator):
    X = torch.ones(6, 5)
    X[4] = 0
    estimator.set_params(estimator=Rooted())
    with pytest.raises(UnsupportedNetworkError, match="NaN or infinite at 1 of 6 samples"):
        fitted = estimator.fit(X)
        (fitted.kneighbors if hasattr(fitted, "kneighbors") else fitted)(X)


class Multiplied(nn.Module):
    """Network with outputs of any magnitude."""

    def __init__(self, factor):
        super().__init__()
        self.layer, self.factor = nn.Linear(5, 3), factor

    def forward(self, rows):
        return self.layer(rows) * self.factor


@pytest.mark.parametrize("factor", [1e-23, 1e-15, 1e15, 1e23])
def test_squared_gradients_may_leave_the_range_of_float32(factor):
    network = Multiplied(factor)
    X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    expected = NetworkKernel(network.layer)(X)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-5)
    influence = NetworkKernel(network).influence(X)
    np.testing.assert_allclose(influence, NetworkKernel(network.layer).influence(X), atol=1e-4)


def test_a_network_may_use_autocast():
    class Autocast(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, rows):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = torch.tanh(self.body(rows))
            return self.head(hidden.float())

    X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.diag(NetworkKernel(Autocast())(X)), 1, atol=1e-2)


def test_a_scripted_network_has_the_same_kernel():
    network, X = build(NETWORKS[0])
    scripted = torch.jit.script(network)
    np.testing.assert_allclose(NetworkKernel(scripted)(X), NetworkKernel(network)(X), atol=1e-10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@cases
def test_a_gpu_computes_the_same_kernel_as_the_cpu(case):
    network, X = build(case)
    expected = NetworkKernel(network, case.output)(X)
    np.testing.assert_allclose(NetworkKernel(network.cuda(), case.output)(X), expected, atol=1e-8)
