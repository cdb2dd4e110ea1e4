"""Features that are computed once: whatever object asks, and never for other bytes."""

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
def made(monkeypatch):
    """The rows whose Jacobians are made, call by call."""
    found, jacobians = [], GradientEngine.jacobians

    def counting(self, *args):
        for rows, jacobian in jacobians(self, *args):
            found.append(len(jacobian))
            yield rows, jacobian

    monkeypatch.setattr(GradientEngine, "jacobians", counting)
    return found


def featurizer(network, folder, **params):
    params = {"n_components": 4, "random_state": 0, **params}
    return GradientFeaturizer(network, memory=str(folder), **params)


def again(network, X, folder, made, **params):
    """Rows that a new featurizer makes; one is always tried in fit."""
    made.clear()
    features = featurizer(network, folder, **params).fit_transform(X)
    return features, sum(made) - 1


METHODS = {
    "nystroem": {},
    "sketch": {"method": "sketch"},
    "exact": {"n_components": None},
    "auto": {"n_components": "auto", "kernel_error": 0.1},
}


@pytest.mark.parametrize("params", METHODS.values(), ids=METHODS)
def test_the_same_is_not_computed_twice(data, tmp_path, made, params):
    network, X = data
    first, computed = again(network, X, tmp_path, made, **params)
    second, nothing = again(network, X, tmp_path, made, **params)
    assert computed > 0 == nothing
    np.testing.assert_array_equal(first, second)


def test_another_object_of_the_same_bytes_is_the_same(data, tmp_path, made):
    network, X = data
    again(network, X, tmp_path, made)
    assert again(pickle.loads(pickle.dumps(network)), X.clone(), tmp_path, made)[1] == 0
    assert again(network.train(), X.numpy(), tmp_path, made)[1] == 0


def trained_further(network):
    network[0].bias.data[0] += 1e-6
    return network


def another_activation(network):
    layers = [nn.ReLU() if isinstance(part, nn.Tanh) else part for part in network]
    assert any(isinstance(part, nn.ReLU) for part in layers)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("changed", [trained_further, another_activation])
def test_another_network_is_another(data, tmp_path, made, changed):
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    _, X = data
    X = torch.randn(30, 5, dtype=torch.float64)
    again(network, X, tmp_path, made)
    other = changed(network)
    found, computed = again(other, X, tmp_path, made)
    assert computed > 0
    expected = GradientFeaturizer(other, n_components=4, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(found, expected)


SETTINGS_THAT_MATTER = {
    "output": {"output": "predicted"},
    "callable": {"output": lambda raw: raw[:, :2]},
    "parameters": {"parameters": "last_layer"},
    "n_components": {"n_components": 3},
    "random_state": {"random_state": 1},
    "method": {"method": "sketch"},
}


@pytest.mark.parametrize("params", SETTINGS_THAT_MATTER.values(), ids=SETTINGS_THAT_MATTER)
def test_other_settings_are_others(data, tmp_path, made, params):
    network, X = data
    again(network, X, tmp_path, made)
    found, computed = again(network, X, tmp_path, made, **params)
    assert computed > 0
    params = {"n_components": 4, "random_state": 0, **params}
    expected = GradientFeaturizer(network, **params).fit_transform(X)
    np.testing.assert_array_equal(found, expected)


def test_other_rows_are_others(data, tmp_path, made):
    network, X = data
    fitted = featurizer(network, tmp_path).fit(X)
    np.testing.assert_allclose(fitted.transform(X[:3]), fitted.transform(X)[:3], atol=1e-12)
    made.clear()
    fitted.transform(X[::-1] if isinstance(X, np.ndarray) else X.flip(0))
    assert sum(made) > 0


def test_without_a_seed_landmarks_are_drawn_anew(data, tmp_path, made):
    network, X = data
    again(network, X, tmp_path, made, random_state=None)
    assert again(network, X, tmp_path, made, random_state=None)[1] > 0


def test_exact_features_need_no_seed(data, tmp_path, made):
    network, X = data
    params = {"n_components": None, "random_state": None}
    again(network, X, tmp_path, made, **params)
    assert again(network, X, tmp_path, made, **params)[1] == 0


def test_other_versions_compute_anew(data, tmp_path, made, monkeypatch):
    from sknetsim.estimators import featurizer as module

    network, X = data
    again(network, X, tmp_path, made)
    monkeypatch.setattr(module, "get_versions", lambda: {"torch": "99.0"})
    assert again(network, X, tmp_path, made)[1] > 0


def test_a_memory_of_joblibs(data, tmp_path, made):
    network, X = data
    memory = joblib.Memory(tmp_path, verbose=0)
    params = {"n_components": 4, "random_state": 0, "memory": memory}
    first = GradientFeaturizer(network, **params).fit_transform(X)
    made.clear()
    np.testing.assert_array_equal(GradientFeaturizer(network, **params).fit_transform(X), first)
    assert made == [1]


def test_nothing_is_written_without_a_memory(data, tmp_path, monkeypatch):
    network, X = data
    monkeypatch.chdir(tmp_path)
    GradientFeaturizer(network, n_components=4).fit_transform(X)
    assert list(tmp_path.iterdir()) == []


def test_bad_memories_are_refused(data):
    network, X = data
    with pytest.raises(ValueError, match="'memory' parameter"):
        GradientFeaturizer(network, memory=3).fit(X)


def test_a_grid_makes_each_fold_once(data, tmp_path, made):
    """Twenty settings of five folds: the rows of one pass for each fold."""
    network, X = data
    X = X.numpy()
    steps = [
        ("features", featurizer(network, tmp_path)),
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
    one_pass = sum(made)
    steps[0][1].set_params(memory=str(tmp_path))
    made.clear()
    search.fit(X)
    tried = FOLDS * (SETTINGS - 1)  # A row is tried in each fit.
    assert sum(made) == one_pass + tried
    assert clone(search).estimator.named_steps["features"].estimator is network
