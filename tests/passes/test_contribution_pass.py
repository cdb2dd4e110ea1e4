"""Contributions to similarities, against sums over entries of Jacobians written out."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes.contribution_pass import Role, compute_contributions, find_roles

from .. import naive

EPS = np.finfo(np.float64).eps


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 2)
    ).double()


@pytest.fixture
def data():
    network = make_network()
    return network, *torch.randn(2, 7, 2, 4, dtype=torch.float64)


def contributions(network, X, Y, whitening="unit", positions=None, batch_size=3):
    engine = GradientEngine(resolve_network(network), batch_size=batch_size)
    sets = Samples(X), Samples(Y)
    return compute_contributions(engine, find_roles(network), sets, whitening, positions)


def shares(network, X, Y, whitening):
    """Return the products of all entries of whitened Jacobians, of shape (n, P)."""
    J, J2 = (naive.jacobians(network, rows) for rows in (X, Y))
    if whitening == "none":
        return np.einsum("nop,nop->np", J, J2) / J.shape[1]
    for jacobians in (J, J2):
        for n, jacobian in enumerate(jacobians):
            root, rank = naive.inverse_root(jacobian @ jacobian.T, EPS)
            jacobians[n] = root @ jacobian / np.sqrt(rank)
    return np.einsum("nop,nop->np", J, J2)


@pytest.mark.parametrize("whitening", ["unit", "none"])
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_activations_contribute_their_columns_of_each_weight(data, whitening, batch_size):
    network, X, Y = data
    similarity, activations, layers, _ = contributions(
        network, X, Y, whitening, batch_size=batch_size
    )
    entries = shares(network, X, Y, whitening)
    np.testing.assert_allclose(similarity, entries.sum(axis=1), atol=1e-9)
    sizes = np.cumsum([parameter.numel() for parameter in network.parameters()])[:-1]
    parts = np.split(entries, sizes, axis=1)
    for (name, parameter), part in zip(network.named_parameters(), parts, strict=True):
        columns = part.reshape(len(X), parameter.shape[0], -1).sum(axis=1)
        np.testing.assert_allclose(activations[name], columns, atol=1e-9)
        assert layers[name] == name.partition(".")[0]


def test_pairs_of_positions_sum_to_the_contribution_of_their_layer(data):
    network, X, Y = data
    _, activations, _, positions = contributions(network, X, Y, positions="0")
    assert list(positions) == ["0"] and positions["0"].shape == (7, 3, 3)
    expected = activations["0.weight"].sum(axis=1) + activations["0.bias"].sum(axis=1)
    np.testing.assert_allclose(positions["0"].sum(axis=(1, 2)), expected, atol=1e-9)


def test_positions_are_the_same_in_parts_of_any_size(data, monkeypatch):
    network, X, Y = data
    expected = contributions(network, X, Y, positions="0")[3]["0"]
    monkeypatch.setattr("sknetsim._passes.contribution_pass._PAIR_ELEMENTS", 1)
    actual = contributions(network, X, Y, positions="0", batch_size=7)[3]["0"]
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_patterns_that_match_no_layer_with_positions_raise_an_error(data):
    network, X, Y = data
    with pytest.raises(ValueError, match=r"`positions` must match .* got '1'\. Use None, .*'0'"):
        contributions(network, X, Y, positions="1")


def test_roles_name_the_layer_and_the_axis():
    network = nn.ModuleDict({"embed": nn.Embedding(3, 2), "conv": nn.Conv1d(2, 3, 2)})
    network["tied"] = nn.Linear(2, 3)
    network["tied"].weight = network["embed"].weight
    assert find_roles(network) == {
        "embed.weight": Role("embed", by_rows=True),
        "conv.weight": Role("conv", by_rows=False),
        "conv.bias": Role("conv", by_rows=False),
        "tied.bias": Role("tied", by_rows=False),
    }
