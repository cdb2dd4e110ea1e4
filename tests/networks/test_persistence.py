"""Estimators in pickles: for other processes, machines and versions."""

import copy
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import (
    ActiveLearningSampler,
    GradientFeaturizer,
    LoadedElsewhereWarning,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
)
from sknetsim._networks.persistence import _choose_location, dumps, get_versions, loads

SCRIPT = """
import pickle, sys
import numpy as np, torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn
from sknetsim import NetworkDensity

class InScript(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        self.scale = lambda scores: 2 * scores
    def forward(self, X):
        return self.scale(self.layers(X))

if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    net = NeuralNetClassifier(
        InScript, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    ).fit(X, np.arange(40) % 3)
    wrapped = {"net": net, "frozen": FrozenEstimator(net), "module": net.module_}[sys.argv[1]]
    density = NetworkDensity(wrapped, method="threshold", dimension=3.0)
    search = GridSearchCV(density, {"threshold": [0.2, 0.5]}, cv=2, n_jobs=2).fit(X)
    print(np.isfinite(search.cv_results_["mean_test_score"]).all())
    with open(sys.argv[2], "wb") as file:
        pickle.dump((search.best_estimator_, X, search.best_estimator_.score_samples(X)), file)
"""


class Perceptron(nn.Module):
    """Network so large that a pickle consists mostly of its weights."""

    def __init__(self, hidden=200):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 100))

    def forward(self, X):
        return self.layers(X)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def net(X):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        params = {"criterion": nn.CrossEntropyLoss, "max_epochs": 1, "verbose": 0}
        return NeuralNetClassifier(Perceptron, train_split=None, **params).fit(X, np.arange(12))


FITTED_SCALER = StandardScaler().fit(np.random.default_rng(1).normal(size=(12, 4)))
WRAPPERS = {
    "net": lambda net: net,
    "frozen": FrozenEstimator,
    "pipeline": lambda net: FrozenEstimator(make_pipeline(FITTED_SCALER, net)),
    "module": lambda net: net.module_,
}
wrappers = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)


def pickle_and_load(estimator, folder):
    return pickle.loads(pickle.dumps(estimator))


def dump_and_load(estimator, folder):
    joblib.dump(estimator, folder / "estimator.joblib")
    return joblib.load(folder / "estimator.joblib")


def deepcopy(estimator, folder):
    return copy.deepcopy(estimator)


copies = pytest.mark.parametrize("copy_estimator", [pickle_and_load, dump_and_load, deepcopy])
METHODS = {
    "queries": (ActiveLearningSampler, "query"),
    "density": (NetworkDensity, "score_samples"),
    "neighbors": (NetworkNeighbors, "kneighbors"),
    "kernel": (NetworkKernel, "transform"),
    "perceptual": (lambda net, output: PerceptualKernel(net), "transform"),
    "features": (GradientFeaturizer, "transform"),
}
methods = pytest.mark.parametrize(("kind", "method"), METHODS.values(), ids=METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", ["net", "frozen", "module"])
def test_the_class_of_a_network_may_be_defined_in_a_script(wrapped, tmp_path):
    """The pickle is loaded in worker processes, and in a process that did not run the script."""
    script, file = tmp_path / "script.py", tmp_path / "density.pickle"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), wrapped, str(file)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.stdout.strip() == "True", process.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("error", LoadedElsewhereWarning)
        density, X, scores = pickle.loads(file.read_bytes())
    np.testing.assert_allclose(density.score_samples(X), scores)


@wrappers
@methods
@copies
def test_copies_compute_the_same(X, net, wrap, kind, method, copy_estimator, tmp_path):
    fitted = kind(wrap(net), "predicted").fit(X)
    expected = getattr(fitted, method)(X)
    np.testing.assert_array_equal(getattr(copy_estimator(fitted, tmp_path), method)(X), expected)


@wrappers
@methods
def test_weights_are_stored_once(X, net, wrap, kind, method):
    fitted = kind(wrap(net), "predicted").fit(X)
    alone = len(pickle.dumps(wrap(net)))
    sums = 1 + (kind is NetworkDensity)  # A soft density contains a sum as large as the weights.
    assert len(pickle.dumps(fitted)) < sums * alone + 20_000


def test_the_network_is_one_object_after_loading(X, net):
    loaded = pickle_and_load(NetworkNeighbors(net).fit(X), None)
    assert loaded.estimator_ is loaded.estimator
    part = pickle_and_load(
        NetworkNeighbors(net.module_, parameters=net.module_.layers[2]).fit(X), None
    )
    assert part.parameters is part.estimator_.layers[2]


def test_a_shallow_copy_shares_the_network(X, net):
    fitted = NetworkNeighbors(net).fit(X)
    assert copy.copy(fitted).estimator_ is fitted.estimator_


def test_a_deep_copy_of_several_objects_shares_one_network(X, net):
    pair = [NetworkNeighbors(net).fit(X), net]
    copied = copy.deepcopy(pair)
    assert copied[0].estimator_ is copied[1] is not net


def test_a_missing_device_of_an_estimator_becomes_none(X, net):
    fitted = NetworkNeighbors(net).fit(X).set_params(device="cuda:99")
    loaded = pickle_and_load(fitted, None)
    assert loaded.device is None
    np.testing.assert_array_equal(
        loaded.kneighbors(X)[1], NetworkNeighbors(net).fit(X).kneighbors(X)[1]
    )


def test_a_loaded_net_can_be_trained_further(X, net):
    loaded = pickle_and_load(NetworkNeighbors(net).fit(X), None).estimator_
    before = loaded.module_.layers[0].weight.detach().clone()
    loaded.partial_fit(X, np.arange(12))
    assert not torch.equal(loaded.module_.layers[0].weight, before)


def test_a_missing_device_of_a_net_becomes_the_cpu(X, net):
    """Without a second device, only the location that torch is given can be tested."""
    storage = object()
    assert _choose_location(storage, "cpu") is None
    assert _choose_location(storage, "cuda:99") is storage
    elsewhere = copy.deepcopy(net)
    elsewhere.device = "cuda:99"
    loaded = loads(dumps({"net": elsewhere}))["net"]
    assert loaded.device == "cpu"
    assert elsewhere.device == "cuda:99"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_fitted_density_of_a_gpu_loads_on_a_cpu(X, net, monkeypatch):
    fitted = NetworkDensity(net, device="cuda").fit(X)
    data = pickle.dumps(fitted)
    monkeypatch.setattr(
        "sknetsim._networks.persistence.has_device", lambda location: str(location) == "cpu"
    )
    loaded = pickle.loads(data).set_params(device="cpu")
    expected = NetworkDensity(net).fit(X).score_samples(X)
    np.testing.assert_allclose(loaded.score_samples(X), expected, atol=1e-4)


def test_the_network_and_the_versions_at_fit_are_stored(X, net):
    made_with = NetworkNeighbors(net).fit(X).made_with_
    assert made_with["network"].startswith("Perceptron of 21,100 parameters, ")
    assert made_with["torch"] == torch.__version__.split("+")[0]


def test_loading_raises_no_warning_if_nothing_has_changed(X, net):
    data = pickle.dumps(NetworkNeighbors(net).fit(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(data)


def test_loading_warns_of_other_versions(X, net, monkeypatch):
    data = pickle.dumps(NetworkNeighbors(net).fit(X))
    now = {**get_versions(), "torch": "99.0"}
    monkeypatch.setattr("sknetsim._networks.persistence.get_versions", lambda: now)
    with pytest.warns(LoadedElsewhereWarning, match=r"NetworkNeighbors was .*torch was .*99\.0"):
        pickle.loads(data)


def test_loading_warns_of_a_network_that_has_changed_since_fit(X, net):
    changing = copy.deepcopy(net)
    fitted = NetworkNeighbors(changing).fit(X)
    changing.module_.layers[0].weight.data += 1
    with pytest.warns(LoadedElsewhereWarning, match="network was Perceptron"):
        pickle_and_load(fitted, None)
