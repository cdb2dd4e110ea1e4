"""Gradients of parameters without a rule, by vmap and by a loop."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import NetworkKernel
from sknetsim._gradients.fallback import Fallback
from sknetsim._gradients.outputs import Outputs
from sknetsim._networks.network import resolve_network

from .. import naive
from ..cases import NETWORKS, build


def compute_gradients(network, X, loop, graph=False):
    """Return the gradients of all parameters, and whether they were computed by the loop."""
    taken = resolve_network(network.eval())
    fallback = Fallback(taken.call, Outputs("all", taken).select, graph)
    fallback.loop = loop
    names = [name for name, _ in network.named_parameters()]
    block = fallback.block(network, names, X, None)
    assert [name for name, _ in block.layout] == names
    return block.materialize(), fallback.loop


@pytest.mark.parametrize("graph", [False, True], ids=["no graph", "graph"])
@pytest.mark.parametrize("loop", [False, True], ids=["vmap", "loop"])
@pytest.mark.parametrize("name", ["MLP", "tied autoencoder", "a module registered twice"])
def test_gradients_equal_the_double_loop(name, loop, graph):
    network, X = build(next(case for case in NETWORKS if case.name == name))
    gradients, by_loop = compute_gradients(network, X, loop, graph)
    assert by_loop == loop
    assert gradients.requires_grad == graph
    np.testing.assert_allclose(gradients.detach(), naive.jacobians(network, X), atol=1e-10)


def test_the_loop_leaves_no_gradients_in_the_parameters():
    network, X = build(NETWORKS[0])
    compute_gradients(network, X, loop=True)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_sparse_gradients_become_dense():
    network = nn.Sequential(nn.EmbeddingBag(7, 3, sparse=True), nn.Linear(3, 2)).double()
    words = torch.randint(0, 7, (5, 4), generator=torch.Generator().manual_seed(0))
    gradients, _ = compute_gradients(network, words, loop=True)
    np.testing.assert_allclose(gradients, naive.jacobians(network, words), atol=1e-10)


class Branching(nn.Module):
    """Network with a branch on its values, which vmap does not support."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.body = nn.Linear(5, 3)

    def forward(self, rows):
        hidden = self.body(rows) * self.scale
        return hidden * 2 if rows.abs().max().item() > 100 else hidden


def test_networks_that_vmap_does_not_support_are_computed_by_the_loop():
    network = Branching().double()
    X = torch.randn(6, 5, dtype=torch.float64)
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-10)
    gradients, by_loop = compute_gradients(network, X, loop=False)
    assert by_loop
    np.testing.assert_allclose(gradients, J, atol=1e-10)


def test_exhausted_memory_does_not_start_the_loop(monkeypatch):
    def exhaust(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("sknetsim._gradients.fallback.vmap", exhaust)
    with pytest.raises(torch.OutOfMemoryError):
        compute_gradients(Branching(), torch.randn(3, 5), loop=False)
