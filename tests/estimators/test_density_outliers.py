"""NetworkDensity as an outlier detector."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import NetworkDensity

from ..cases import NETWORKS, build

METHODS = {
    "soft": {"output": "predicted"},
    "threshold": {"output": "predicted", "method": "threshold", "threshold": 0.9},
    "power": {"output": "predicted", "method": "power", "alpha": 64},
    "power of features": {
        "output": "predicted",
        "method": "power",
        "alpha": 64,
        "n_components": 128,
        "random_state": 0,
    },
}
methods = pytest.mark.parametrize("params", METHODS.values(), ids=METHODS)


@pytest.fixture(scope="module")
def digits():
    """Trained network, and two halves of the samples that it was not trained on."""
    images, labels = load_digits(return_X_y=True)
    X = torch.as_tensor(images / 16, dtype=torch.float32)
    y = torch.as_tensor(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        order = torch.randperm(len(X))
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(X[order[:600]]), y[order[:600]]).backward()
            optimizer.step()
    return network, X[order[600:1200]].numpy(), X[order[1200:]].numpy()


@pytest.mark.slow
@methods
@pytest.mark.parametrize("contamination", [0.05, 0.1])
def test_the_share_of_flagged_samples_is_near_the_contamination(digits, params, contamination):
    network, fitted, held_out = digits
    density = NetworkDensity(network, contamination=contamination, **params).fit(fitted)
    flagged = (density.predict(held_out) == -1).mean()
    assert contamination / 2 <= flagged <= 2 * contamination


@pytest.mark.slow
@pytest.mark.parametrize("params", [METHODS["threshold"], METHODS["power"]], ids=str)
def test_noise_images_are_outliers(digits, params):
    network, fitted, held_out = digits
    noise = np.random.default_rng(0).uniform(size=held_out.shape).astype(np.float32)
    density = NetworkDensity(network, **params).fit(fitted)
    scores = density.decision_function(np.concatenate([held_out, noise]))
    assert roc_auc_score(np.repeat([1, 0], len(noise)), scores) > 0.95


@methods
def test_the_offset_is_a_percentile_of_the_fitted_log_densities(digits, params):
    network, fitted, _ = digits
    density = NetworkDensity(network, contamination=0.25, **params).fit(fitted[:200])
    scores = density.score_samples(fitted[:200])
    assert density.offset_ == pytest.approx(np.percentile(scores, 25))


def test_the_decision_is_the_log_density_minus_the_offset():
    network, X = build(NETWORKS[0], n_samples=20)
    density = NetworkDensity(network).fit(X)
    expected = density.score_samples(X) - density.offset_
    np.testing.assert_array_equal(density.decision_function(X), expected)
    np.testing.assert_array_equal(density.predict(X), np.where(expected < 0, -1, 1))
    np.testing.assert_array_equal(NetworkDensity(network).fit_predict(X), density.predict(X))


def test_fit_resets_the_offset():
    network, X = build(NETWORKS[0], n_samples=20)
    density = NetworkDensity(network).fit(X)
    before = density.offset_
    assert density.fit(X[:10]).offset_ != before


@pytest.mark.parametrize("params", [{"contamination": 0.4}, {"alpha": 9.0}], ids=str)
def test_the_offset_follows_the_parameters(params):
    network, X = build(NETWORKS[0], n_samples=20)
    density = NetworkDensity(network, method="power", dimension=3.0).fit(X)
    before = density.offset_
    twin = copy.copy(density).set_params(**params)
    assert twin.offset_ == pytest.approx(
        NetworkDensity(network, method="power", dimension=3.0, **params).fit(X).offset_
    )
    assert density.offset_ == before


def test_the_offset_follows_the_network():
    network, X = build(NETWORKS[0], n_samples=20)
    net = NeuralNetClassifier(network, criterion=nn.CrossEntropyLoss, verbose=0).initialize()
    density = NetworkDensity(net, method="power", dimension=3.0).fit(X)
    before = density.offset_
    next(net.module_.parameters()).data.mul_(3)
    refitted = NetworkDensity(net, method="power", dimension=3.0).fit(X)
    assert density.offset_ == refitted.offset_ != before


def test_fit_predict_passes_labels_to_an_untrained_network():
    X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    net = NeuralNetClassifier(nn.Linear(4, 2), criterion=nn.CrossEntropyLoss, verbose=0)
    assert set(NetworkDensity(net).fit_predict(X, np.arange(20) % 2)) <= {-1, 1}


def test_the_contamination_auto_is_a_tenth():
    network, X = build(NETWORKS[0], n_samples=20)
    auto = NetworkDensity(network).fit(X).offset_
    assert auto == NetworkDensity(network, contamination=0.1).fit(X).offset_


def test_there_is_no_offset_before_fit():
    assert not hasattr(NetworkDensity(), "offset_")


@pytest.mark.parametrize("contamination", [0, 0.6, "some", None])
def test_invalid_contaminations_raise_an_error(contamination):
    network, X = build(NETWORKS[0], n_samples=5)
    with pytest.raises(ValueError, match="'contamination' parameter"):
        NetworkDensity(network, contamination=contamination).fit(X)
