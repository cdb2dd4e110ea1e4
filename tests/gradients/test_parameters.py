"""Selected parameters of networks, blocks of them, and the parameters of the estimators."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from sknetsim import GradientFeaturizer, NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim._gradients.engine import GradientEngine
from sknetsim._gradients.parameters import select_parameters
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

from ..cases import NETWORKS, TwinLayers, build


@pytest.fixture
def network():
    return nn.Sequential(
        nn.Linear(5, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    )


def test_parameters_are_selected_by_name_pattern_and_part(network):
    everything = {f"{layer}.{kind}" for layer in ("0", "2.0", "2.1") for kind in ("weight", "bias")}
    assert select_parameters(network, None) == everything
    assert select_parameters(network, "last_layer") == {"2.1.weight", "2.1.bias"}
    assert select_parameters(network, "2.*") == everything - {"0.weight", "0.bias"}
    assert select_parameters(network, ["0.bias", "*.1.weight"]) == {"0.bias", "2.1.weight"}
    assert select_parameters(network, network[2][0]) == {"2.0.weight", "2.0.bias"}
    network[2][1].requires_grad_(False)
    assert select_parameters(network, "last_layer") == {"2.0.weight", "2.0.bias"}


@pytest.mark.parametrize(
    "bad", ["3.*", ["first"], ["0.weight", "1.weight"], nn.Linear(2, 2), 5, [1]], ids=repr
)
def test_a_selection_without_a_match_raises_an_error(network, bad):
    with pytest.raises(
        ValueError,
        match=r"must be None, 'last_layer', .* each match a trainable parameter, .*; got",
    ):
        NetworkKernel(network, parameters=bad)(torch.ones(2, 5))


def test_kernels_of_parts_add_up_to_the_kernel():
    network, X = build(NETWORKS[1])
    everything = NetworkKernel(network, normalize=False)
    parts = [NetworkKernel(network, normalize=False, parameters=f"{i}.*")(X) for i in (0, 2, 4)]
    np.testing.assert_allclose(sum(parts), everything(X), atol=1e-10)
    last = GradientFeaturizer(network, parameters="last_layer").fit_transform(X)
    assert last.shape == (6, 13)


def list_blocks(network, X):
    """Return the names of the parameters of each block of an engine, and its fallback's."""
    engine = GradientEngine(resolve_network(network))
    ((_, jacobian),) = engine.jacobians(Samples(X))
    return set(jacobian.blocks), engine.unserved


def test_tied_parameters_have_their_own_blocks():
    blocks, unserved = list_blocks(TwinLayers().double(), torch.randn(6, 5).double())
    assert blocks == {("first.weight",), ("first.bias",), ("second.bias",)}
    assert not unserved


def test_parameters_of_one_layer_share_a_block():
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
    blocks, _ = list_blocks(network, torch.randn(6, 5))
    assert blocks == {("0.weight", "0.bias"), ("2.weight",)}


BAD = [
    (NetworkDensity(threshold=1.0), "'threshold' parameter.*0.0, 1.0\\)"),
    (NetworkDensity(threshold=-0.1), "'threshold'"),
    (NetworkDensity(alpha=0), "'alpha' parameter.*0.0, inf"),
    (NetworkDensity(method="hard"), "'method' parameter.*'power'"),
    (NetworkDensity(dimension=0.5), "'dimension'"),
    (NetworkDensity(batch_size=0), "'batch_size'"),
    (NetworkKernel(metric="cosine"), "'metric' parameter.*'rotation'"),
    (NetworkKernel(normalize="yes"), "'normalize'"),
    (NetworkNeighbors(n_neighbors=0), "'n_neighbors'"),
    (NetworkNeighbors(radius=2.1), "'radius' parameter.*0.0, 2.0"),
    (NetworkNeighbors(distance="manhattan"), "'distance' parameter.*'cosine'"),
    (GradientFeaturizer(n_components=0), "'n_components'"),
    (GradientFeaturizer(random_state="seed"), "'random_state'"),
]


@pytest.mark.parametrize(("estimator", "message"), BAD, ids=lambda value: str(value)[:60])
def test_invalid_parameters_raise_an_error(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(np.random.default_rng(0).normal(size=(6, 2)), np.arange(6) % 2)


def test_a_kernel_called_directly_checks_its_parameters_too():
    with pytest.raises(ValueError, match="'metric'"):
        NetworkKernel(nn.Linear(2, 1), metric="cosine")(np.ones((3, 2), dtype=np.float32))


def test_a_missing_device_raises_an_error():
    for device in ("cuda:99", "abacus", 3.5):
        with pytest.raises(
            ValueError, match=r"`device` must be None .*; got .*which torch cannot use"
        ):
            NetworkKernel(nn.Linear(2, 1), device=device)(torch.ones(3, 2))


def test_a_part_of_the_network_survives_clone(network):
    kernel = NetworkKernel(network, parameters=network[2])
    X = torch.randn(4, 5)
    np.testing.assert_array_equal(clone(kernel)(X), kernel(X))


def test_parameters_that_are_changed_after_fit_are_checked():
    X = np.random.default_rng(0).normal(size=(8, 2))
    density = NetworkDensity(method="threshold").fit(X)
    with pytest.raises(ValueError, match="'threshold'"):
        density.set_params(threshold=2).score_samples(X)
    with pytest.raises(NotFittedError):
        density.set_params(threshold=0.5, method="soft").score_samples(X)


def test_unused_parameters_have_zero_gradients():
    case = next(case for case in NETWORKS if case.name == "raw and unused parameters")
    network, X = build(case)
    features = GradientFeaturizer(network).fit_transform(X)
    unused = sum(parameter.numel() for parameter in network.unused.parameters())
    assert features.shape[1] == 3 * sum(parameter.numel() for parameter in network.parameters())
    assert not features.reshape(6, 3, -1)[:, :, -unused:].any()
