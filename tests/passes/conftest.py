"""A network with its samples and engine, for the tests of passes."""

import pytest

from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network

from ..cases import NETWORKS, build


@pytest.fixture
def mlp():
    """Return a perceptron, 20 samples, and an engine with chunks of four samples."""
    network, X = build(NETWORKS[0], n_samples=20)
    return network, X, GradientEngine(resolve_network(network), batch_size=4)


@pytest.fixture
def source(mlp):
    """Return the engine and its samples."""
    _, X, engine = mlp
    return engine, X
