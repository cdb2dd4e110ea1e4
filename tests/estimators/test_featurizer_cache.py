"""Cache of the featurizer: equal features are computed once, by any object."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from torch import nn

from sknetsim import GradientFeaturizer, NetworkDensity
from sknetsim._gradients.engine import GradientEngine

from ..cases import NETWORKS, build

FOLDS, SETTINGS = 5, 20


@pytest.fixture
def data():
    return build(NETWORKS[0], n_samples=30)


@pytest.fixture
def counts(monkeypatch):
    """List of the numbers of samples whose Jacobians were computed, one for each chunk."""
    numbers, jacobians = [], GradientEngine.jacobians

    def counting(self, *args):
        for rows, jacobian in jacobians(self, *args):
            numbers.append(len(jacobian))
            yield rows, jacobian

    monkeypatch.setattr(GradientEngine, "jacobians", counting)
    return numbers


def make_featurizer(network, folder, **params):
    params = {"n_components": 4, "random_state": 0, **params}
    return GradientFeaturizer(network, memory=str(folder), **params)


def compute_features(network, X, folder, counts, **params):
    """Return the features of a new featurizer, and how many samples it computed.

    The sample on which fit tries the network is not counted.
    """
    counts.clear()
    features = make_featurizer(network, folder, **params).fit_transform(X)
    return features, sum(counts) - 1


METHODS = {
    "nystroem": {},
    "sketch": {"method": "sketch"},
    "exact": {"n_components": None},
    "auto": {"n_components": "auto", "kernel_error": 0.1},
}


@pytest.mark.parametrize("params", METHODS.values(), ids=METHODS)
def test_equal_features_are_not_computed_twice(data, tmp_path, counts, params):
    network, X = data
    first, computed = compute_features(network, X, tmp_path, counts, **params)
    second, nothing = compute_features(network, X, tmp_path, counts, **params)
    assert computed > 0 == nothing
    np.testing.assert_array_equal(first, second)


def test_copies_with_equal_values_share_the_cache(data, tmp_path, counts):
    network, X = data
    compute_features(network, X, tmp_path, counts)
    assert (
        compute_features(pickle.loads(pickle.dumps(network)), X.clone(), tmp_path, counts)[1] == 0
    )
    assert compute_features(network.train(), X.numpy(), tmp_path, counts)[1] == 0


def train_further(network):
    network[0].bias.data[0] += 1e-6
    return network


def replace_activation(network):
    layers = [nn.ReLU() if isinstance(part, nn.Tanh) else part for part in network]
    assert any(isinstance(part, nn.ReLU) for part in layers)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("change", [train_further, replace_activation])
def test_another_network_gets_its_own_features(data, tmp_path, counts, change):
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    _, X = data
    X = torch.randn(30, 5, dtype=torch.float64)
    compute_features(network, X, tmp_path, counts)
    other = change(network)
    features, computed = compute_features(other, X, tmp_path, counts)
    assert computed > 0
    expected = GradientFeaturizer(other, n_components=4, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(features, expected)


SETTINGS_THAT_MATTER = {
    "output": {"output": "predicted"},
    "callable": {"output": lambda raw: raw[:, :2]},
    "parameters": {"parameters": "last_layer"},
    "n_components": {"n_components": 3},
    "random_state": {"random_state": 1},
    "method": {"method": "sketch"},
}


@pytest.mark.parametrize("params", SETTINGS_THAT_MATTER.values(), ids=SETTINGS_THAT_MATTER)
def test_other_parameters_get_their_own_features(data, tmp_path, counts, params):
    network, X = data
    compute_features(network, X, tmp_path, counts)
    features, computed = compute_features(network, X, tmp_path, counts, **params)
    assert computed > 0
    params = {"n_components": 4, "random_state": 0, **params}
    expected = GradientFeaturizer(network, **params).fit_transform(X)
    np.testing.assert_array_equal(features, expected)


def test_other_samples_get_their_own_features(data, tmp_path, counts):
    network, X = data
    fitted = make_featurizer(network, tmp_path).fit(X)
    np.testing.assert_allclose(fitted.transform(X[:3]), fitted.transform(X)[:3], atol=1e-12)
    counts.clear()
    fitted.transform(X[::-1] if isinstance(X, np.ndarray) else X.flip(0))
    assert sum(counts) > 0


def test_nothing_is_cached_without_a_seed(data, tmp_path, counts):
    network, X = data
    compute_features(network, X, tmp_path, counts, random_state=None)
    assert compute_features(network, X, tmp_path, counts, random_state=None)[1] > 0


def test_exact_features_are_cached_without_a_seed(data, tmp_path, counts):
    network, X = data
    params = {"n_components": None, "random_state": None}
    compute_features(network, X, tmp_path, counts, **params)
    assert compute_features(network, X, tmp_path, counts, **params)[1] == 0


def test_other_package_versions_get_their_own_features(data, tmp_path, counts, monkeypatch):
    network, X = data
    compute_features(network, X, tmp_path, counts)
    monkeypatch.setattr("sknetsim.estimators.featurizer.get_versions", lambda: {"torch": "99.0"})
    assert compute_features(network, X, tmp_path, counts)[1] > 0


def test_a_joblib_memory_is_accepted(data, tmp_path, counts):
    network, X = data
    memory = joblib.Memory(tmp_path, verbose=0)
    params = {"n_components": 4, "random_state": 0, "memory": memory}
    first = GradientFeaturizer(network, **params).fit_transform(X)
    counts.clear()
    np.testing.assert_array_equal(GradientFeaturizer(network, **params).fit_transform(X), first)
    assert counts == [1]


def test_nothing_is_written_without_a_memory(data, tmp_path, monkeypatch):
    network, X = data
    monkeypatch.chdir(tmp_path)
    GradientFeaturizer(network, n_components=4).fit_transform(X)
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_memory_raises_an_error(data):
    network, X = data
    with pytest.raises(ValueError, match="'memory' parameter"):
        GradientFeaturizer(network, memory=3).fit(X)


def test_a_grid_search_computes_the_features_of_each_fold_once(data, tmp_path, counts):
    """Twenty thresholds in five folds compute each fold in one pass."""
    network, X = data
    X = X.numpy()
    steps = [
        ("features", make_featurizer(network, tmp_path)),
        ("density", NetworkDensity("features", method="threshold", dimension=3.0)),
    ]
    search = GridSearchCV(
        Pipeline(steps),
        {"density__threshold": np.linspace(0, 0.95, SETTINGS)},
        cv=FOLDS,
        refit=False,
    )
    for train in range(FOLDS):
        rows = np.ones(30, dtype=bool)
        rows[6 * train : 6 * train + 6] = False
        steps[0][1].set_params(memory=None).fit(X[rows]).transform(X[rows])
        steps[0][1].transform(X[~rows])
    one_pass = sum(counts)
    steps[0][1].set_params(memory=str(tmp_path))
    counts.clear()
    search.fit(X)
    tried = FOLDS * (SETTINGS - 1)  # Each fit tries the network on one sample.
    assert sum(counts) == one_pass + tried
    assert clone(search).estimator.named_steps["features"].estimator is network


def flip_in_cache(folder, part):
    """Flip a bit in the middle of the only occurrence of some bytes in the files of a cache."""
    (path,) = [path for path in folder.rglob("output.pkl") if part in path.read_bytes()]
    content = bytearray(path.read_bytes())
    content[content.find(part) + len(part) // 2] ^= 64
    path.write_bytes(content)


CACHED = {
    "features": lambda fitted, features: features.tobytes(),
    "landmarks": lambda fitted, features: fitted._projection.root.tobytes(),
}


@pytest.mark.parametrize("part", CACHED.values(), ids=CACHED)
def test_damaged_results_are_computed_again(data, tmp_path, part, caplog):
    network, X = data
    fitted = make_featurizer(network, tmp_path)
    expected = fitted.fit_transform(X)
    flip_in_cache(tmp_path, part(fitted, expected))
    for reports in (1, 0):
        caplog.clear()
        actual = make_featurizer(network, tmp_path).fit_transform(X)
        np.testing.assert_array_equal(actual, expected)
        assert caplog.text.count("cached result must be as it was written") == reports


def test_cached_features_can_be_mapped_to_memory(data, tmp_path):
    network, X = data
    memory = joblib.Memory(tmp_path, mmap_mode="r", verbose=0)
    params = {"n_components": 4, "random_state": 0}
    for _ in range(2):
        features = GradientFeaturizer(network, memory=memory, **params).fit_transform(X)
    assert isinstance(features, np.memmap)
    np.testing.assert_array_equal(features, GradientFeaturizer(network, **params).fit_transform(X))
