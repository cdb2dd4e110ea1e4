"""Gradients of combinations of outputs, against the Jacobian times their weights."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim._curvature.loss_derivatives import differentiate_margins
from sknetsim._curvature.sources import CombinationEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

from .. import naive


def make_engine(dtype=torch.float64):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).to(dtype)
    return network, CombinationEngine(resolve_network(network))


X = torch.randn(7, 1, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def compute_gradients(engine, weights):
    parts = engine.jacobians(Samples(X).with_labels(torch.as_tensor(weights)))
    return torch.cat([jacobian.materialize() for _, jacobian in parts]).numpy()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_gradients_are_the_weights_times_the_jacobian(count):
    network, engine = make_engine()
    weights = np.random.default_rng(0).normal(size=(7, count, 3))
    expected = weights @ naive.jacobians(network, X)
    np.testing.assert_allclose(compute_gradients(engine, weights), expected, rtol=1e-9, atol=1e-12)


def test_short_weights_keep_their_digits_in_float32():
    _, engine = make_engine(torch.float32)
    weights = np.random.default_rng(0).normal(size=(7, 1, 3))
    long, short = (compute_gradients(engine, scale * weights) for scale in (1.0, 1e-25))
    np.testing.assert_allclose(short / 1e-25, long, rtol=1e-5)


def test_weights_of_zero_give_zero_gradients():
    _, engine = make_engine()
    assert not compute_gradients(engine, np.zeros((7, 1, 3))).any()


def test_elements_of_the_selected_parameters_are_counted():
    network, engine = make_engine()
    assert engine.count_elements() == sum(p.numel() for p in network.parameters())
    last = CombinationEngine(engine.network, "last_layer")
    assert last.count_elements() == 27


def test_margins_of_confident_predictions_have_finite_gradients():
    network, engine = make_engine()
    with torch.no_grad():
        network[-1].bias.copy_(torch.tensor([800.0, 0.0, -800.0]))
    gradients = differentiate_margins(engine, Samples(X), np.zeros(7, dtype=np.int64))
    torch.testing.assert_close(gradients, torch.tensor([[1.0, -1.0, 0.0]] * 7).double())
