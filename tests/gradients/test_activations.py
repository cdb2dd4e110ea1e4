"""Recorded inputs of layers, and their Jacobians; tests/estimators/test_perceptual.py has more."""

import math

import pytest
import torch
from torch import nn

from sknetsim._gradients.activations import ActivationEngine, record_inputs
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples


def make_network():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def make_samples(samples=6):
    return torch.randn(
        samples, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def test_the_inputs_of_all_layers_are_recorded_by_name():
    network, X = make_network(), make_samples()
    with record_inputs(network, None) as calls:
        network(X)
    assert list(calls) == ["", "0", "1", "2", "3"]
    torch.testing.assert_close(calls["3"][0].values, torch.tanh(network[1](X.flatten(1))).detach())


def test_only_the_named_layers_are_recorded():
    network, X = make_network(), make_samples()
    with record_inputs(network, ["1"]) as calls:
        network(X)
        network(X)
    assert [len(inputs) for inputs in calls.values()] == [2]


def test_the_input_of_the_network_and_its_views_are_marked():
    network, X = make_network(), make_samples()
    with record_inputs(network, None) as calls:
        network(X)
    marks = {name: inputs[0].direct for name, inputs in calls.items()}
    assert marks == {"": True, "0": True, "1": True, "2": False, "3": False}


def test_later_changes_of_an_input_are_not_recorded():
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Tanh()).double()
    hidden = []
    network[1].register_forward_hook(lambda layer, args, output: hidden.append(args[0]))
    X = make_samples().flatten(1)
    with torch.no_grad(), record_inputs(network, ["1"]) as calls:
        network(X)
        expected = hidden[0].clone()
        hidden[0].zero_()
    torch.testing.assert_close(calls["1"][0].values, expected)


def test_inputs_that_are_not_floating_point_have_no_values():
    network = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    words = torch.tensor([1, 2, 4])
    with record_inputs(network, None) as calls:
        network(words)
    assert calls["0"][0].values is None
    assert calls["1"][0].values.shape == (3, 3)


def test_scripted_layers_are_not_recorded():
    network = make_network()
    network[2] = torch.jit.script(network[2])
    X = make_samples()
    with record_inputs(network, None) as calls:
        network(X)
    assert list(calls) == ["", "0", "1", "3"]


def test_hooks_are_removed_after_an_exception():
    network, X = make_network(), make_samples()
    with pytest.raises(RuntimeError), record_inputs(network, None):
        network(X[:, :1])
    assert not any(layer._forward_pre_hooks for layer in network.modules())


def test_jacobians_are_activations_divided_by_the_root_of_their_number():
    network, X = make_network(), make_samples()
    engine = ActivationEngine(resolve_network(network), layers=["1", "3"])
    ((_, jacobian),) = engine.jacobians(Samples(X))
    hidden = torch.tanh(network[1](X.flatten(1))).detach()
    expected = torch.cat([X.flatten(1) / math.sqrt(4), hidden / math.sqrt(5)], dim=1)
    torch.testing.assert_close(jacobian.materialize()[:, 0], expected)
