"""Estimators in pickles: for other processes, machines and versions."""

import copy
import io
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
from sknetsim._networks.persistence import (
    Verified,
    _choose_location,
    _digest,
    dumps,
    get_versions,
    loads,
    pack,
    unpack,
)

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
    for name, wrapped in {
        "net": net, "frozen": FrozenEstimator(net), "module": net.module_
    }.items():
        density = NetworkDensity(wrapped, method="threshold", dimension=3.0)
        search = GridSearchCV(density, {"threshold": [0.2, 0.5]}, cv=2, n_jobs=2).fit(X)
        print(name, np.isfinite(search.cv_results_["mean_test_score"]).all())
        fitted = search.best_estimator_
        with open(f"{sys.argv[1]}/{name}", "wb") as file:
            pickle.dump((fitted, X, fitted.score_samples(X)), file)
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


@pytest.fixture(scope="module")
def script_run(tmp_path_factory):
    """Return the folder with the pickles of a script, and the process that ran it."""
    folder = tmp_path_factory.mktemp("script")
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(folder / "script.py"), str(folder)]
    return folder, subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", ["net", "frozen", "module"])
def test_the_class_of_a_network_may_be_defined_in_a_script(wrapped, script_run):
    """The pickle is loaded in worker processes, and in a process that did not run the script."""
    folder, process = script_run
    assert f"{wrapped} True" in process.stdout.splitlines(), process.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("error", LoadedElsewhereWarning)
        density, X, scores = pickle.loads((folder / wrapped).read_bytes())
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


# Damaged files.


def find_all(data, part):
    """Return the positions in the middle of all occurrences of some bytes."""
    positions, start = [], data.find(part)
    while start >= 0:
        positions.append(start + len(part) // 2)
        start = data.find(part, start + 1)
    return positions


def flip(data, position, bit=0):
    damaged = bytearray(data)
    damaged[position] ^= 1 << bit
    return bytes(damaged)


DAMAGED = {
    "weights": lambda fitted: fitted.estimator_.layers[0].weight.detach().numpy().tobytes(),
    "arrays": lambda fitted: fitted.samples_.tobytes(),
    "names of attributes": lambda fitted: b"samples_",
}


class Holder(NetworkNeighbors):
    """Estimator with an array as attribute."""

    def fit(self, X, y=None):
        super().fit(X)
        self.samples_ = np.array(X)
        return self


@pytest.mark.parametrize("part", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("dump", [pickle.dumps, lambda value: dump_with_joblib(value)])
def test_a_flipped_bit_in_a_pickle_raises_an_error(X, net, part, dump):
    fitted = Holder(net.module_).fit(X)
    data = dump(fitted)
    positions = find_all(data, part(fitted))
    assert positions
    for position in positions:
        with pytest.raises(pickle.UnpicklingError, match="file of a Holder must be as it was writ"):
            load_with_joblib(flip(data, position))


def dump_with_joblib(value):
    file = io.BytesIO()
    joblib.dump(value, file)
    return file.getvalue()


def load_with_joblib(data):
    return joblib.load(io.BytesIO(data))


def test_no_flipped_bit_changes_a_loaded_value():
    """Each other flip raises an error, of pickle or of the digests."""
    value = {"array": np.arange(5.0), "order": np.ones((2, 3), order="F"), "tensor": torch.ones(4)}
    data, changed = pickle.dumps(Verified(value)), []
    for position in range(0, len(data), 3):
        try:
            loaded = pickle.loads(flip(data, position, position % 8)).value
        except Exception:
            continue
        if dumps_of_values(loaded) != dumps_of_values(value):
            changed.append(position)
    assert changed == []


def dumps_of_values(value):
    return {name: np.asarray(part).tobytes() for name, part in value.items()}


ARRAYS = {
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12.0).reshape(3, 4)[::-2, ::2],
    "empty": np.empty((0, 3)),
    "number": np.array(3.0),
    "text": np.array(["a", "bc"]),
    "objects": np.array([None, "a"], dtype=object),
    "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
    "fields": np.zeros(2, dtype=[("a", "f4"), ("b", "i8")]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_any_layout_are_verified_and_unchanged(array, protocol):
    packed = pickle.loads(pickle.dumps(pack({"array": array}), protocol))
    loaded = unpack(packed, "test")["array"]
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


def test_arrays_with_other_shapes_have_other_digests():
    assert _digest("array", np.zeros((2, 3))) != _digest("array", np.zeros((3, 2)))
    assert _digest("array", np.zeros(2, np.float32)) != _digest("array", np.zeros(1))


def test_the_order_of_bytes_does_not_change_a_digest():
    """joblib converts arrays to the order of the machine that loads them."""
    assert _digest("array", np.arange(3.0)) == _digest("array", np.arange(3.0).astype(">f8"))


def test_joblib_maps_arrays_to_memory_without_reading_them(X, net, tmp_path, monkeypatch):
    fitted = Holder(net.module_).fit(X)
    joblib.dump(fitted, tmp_path / "estimator.joblib")
    digested = []
    monkeypatch.setattr(
        "sknetsim._networks.persistence._digest",
        lambda name, part: digested.append(type(part)) or _digest(name, part),
    )
    loaded = joblib.load(tmp_path / "estimator.joblib", mmap_mode="r")
    assert isinstance(loaded.samples_, np.memmap) and digested == [bytes]
    np.testing.assert_array_equal(loaded.kneighbors(X)[1], fitted.kneighbors(X)[1])


def test_the_weights_are_verified_if_joblib_maps_arrays_to_memory(X, net, tmp_path):
    fitted = Holder(net.module_).fit(X)
    data = dump_with_joblib(fitted)
    position = find_all(data, DAMAGED["weights"](fitted))[0]
    (tmp_path / "estimator.joblib").write_bytes(flip(data, position))
    with pytest.raises(pickle.UnpicklingError, match="damaged bytes in '_packed'"):
        joblib.load(tmp_path / "estimator.joblib", mmap_mode="r")


def test_a_pickle_of_an_earlier_version_loads_without_verification(X, net):
    fitted = NetworkNeighbors(net).fit(X)
    state = fitted.__getstate__()
    del state["_digests"]
    loaded = NetworkNeighbors()
    loaded.__setstate__(state)
    np.testing.assert_array_equal(loaded.kneighbors(X)[1], fitted.kneighbors(X)[1])


def test_a_missing_array_raises_an_error():
    packed = pack({"array": np.arange(3.0)})
    del packed["array"]
    with pytest.raises(pickle.UnpicklingError, match=r"file of a test .* damaged bytes in 'array'"):
        unpack(packed, "test")
