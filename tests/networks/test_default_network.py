"""Default network: targets of each kind, units of the labels, and random states."""

import numpy as np
import pytest
import torch

from sknetsim import NetworkDensity, NetworkKernel
from sknetsim._networks.default_network import train_default_network


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(40, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)


def test_the_default_network_is_deterministic_and_leaves_the_random_state(data):
    X, y = data
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    grams = [NetworkKernel(random_state=seed).fit(X, y).transform(X) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(grams[0], grams[1])
    assert not np.allclose(grams[0], grams[2])
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize(
    "y",
    [
        None,
        np.arange(40) % 3,
        np.array(["a", "b"] * 20),
        np.linspace(0, 1, 40),
        np.ones((40, 2)) * 0.5,
    ],
    ids=["reconstruction", "classes", "strings", "regression", "two targets"],
)
def test_the_default_network_takes_any_target(data, y):
    assert np.isfinite(NetworkDensity().fit(data[0], y).score_samples(data[0])).all()


def test_the_default_network_predicts_targets_in_their_units(data):
    X, _ = data
    y = 1000 + 50 * X[:, 0]
    network = train_default_network(X, y, random_state=0)
    predictions = network(torch.as_tensor(X).double()).detach().numpy()[:, 0]
    assert np.corrcoef(predictions, y)[0, 1] > 0.9
    assert abs(predictions.mean() - y.mean()) < 0.2 * y.std()


def test_the_default_network_learns_classes(data):
    X, y = data
    logits = train_default_network(X, y, random_state=0)(torch.as_tensor(X).double())
    assert logits.shape == (40, 3)
    assert (logits.argmax(dim=1).numpy() == y).mean() > 0.8


def test_the_default_network_takes_constant_columns(data):
    X = np.column_stack([data[0], np.ones(40)])
    network = train_default_network(X, None, random_state=0)
    outputs = network(torch.as_tensor(X))
    assert outputs.shape == (40, 5)
    assert torch.isfinite(outputs).all()


def test_the_default_network_is_in_eval_mode_and_float64(data):
    network = train_default_network(*data, random_state=0)
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float64}
