"""Equal contents have equal fingerprints in all objects and processes; others differ."""

import ast
import copy
import functools
import pickle
import subprocess
import sys
import types
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

import sknetsim
from sknetsim._features.sketch import TensorSketch
from sknetsim._features.source import check_features
from sknetsim._networks.fingerprint import fingerprint_samples, fingerprint_value
from sknetsim._networks.persistence import dumps, loads
from sknetsim._networks.samples import Samples

from .pickled_by_value import NETWORKS, make_base


class Scaled(nn.Module):
    """A network with attributes besides its parameters."""

    def __init__(self, scale=2.0, activation=torch.tanh, constant=1.0):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.scale = scale
        self.activation = activation
        self.constant = torch.full((2,), constant)
        nn.init.constant_(self.layer.weight, 0.5)
        nn.init.zeros_(self.layer.bias)

    def forward(self, X):
        return self.scale * self.activation(self.layer(X)) + self.constant


class Edited(Scaled):
    """The same network with different code."""

    def forward(self, X):
        return self.scale * self.activation(self.layer(X)) - self.constant


def shift(network):
    network.layer.weight.data[0, 0] += 1e-7
    return network


def double_output(network):
    network.layer.register_forward_hook(lambda layer, args, output: 2 * output)
    return network


def attention(heads):
    torch.manual_seed(0)
    return nn.MultiheadAttention(4, heads)


def margin(raw):
    return raw[:, :1] - raw[:, 1:]


def power(exponent):
    return lambda raw: raw**exponent


def tie(network, other):
    """Return two layers with equal weights, which are shared if ``other`` is the first layer."""
    layers = nn.Sequential(network, nn.Linear(3, 2))
    layers[1].load_state_dict(network.state_dict())
    layers[1].weight = nn.Parameter(network.weight.detach().clone()) if other else network.weight
    return layers


def parametrize(network):
    nn.utils.parametrize.register_parametrization(network, "weight", nn.Identity())
    return network


class Layer(nn.Linear):
    def forward(self, X):
        return super().forward(X)


class DoubledLayer(nn.Linear):
    def forward(self, X):
        return 2 * super().forward(X)


DoubledLayer.__name__ = DoubledLayer.__qualname__ = "Layer"


class Gain(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, X):
        return self.gain * X


def make_seeded(kind):
    torch.manual_seed(0)
    return kind(3, 2)


def subtract(left, right):
    return left - right


def subtract_renamed(right, left):
    return right - left


PAIRS = {
    "lists of a class": (make_base(scales=[1.0]), make_base(scales=[2.0])),
    "tensors of a class": (make_base(scale=torch.ones(2)), make_base(scale=torch.zeros(2))),
    "partial functions of a class": (
        make_base(scale=functools.partial(margin, 1)),
        make_base(scale=functools.partial(margin, 2)),
    ),
    "cached properties": (
        make_base(scale=functools.cached_property(lambda self: 1)),
        make_base(scale=functools.cached_property(lambda self: 2)),
    ),
    "setters": (
        make_base(scale=property(None, lambda self, value: None)),
        make_base(scale=property(None, lambda self, value: self)),
    ),
    "cached functions": (functools.cache(lambda: 1), functools.cache(lambda: 2)),
    "static methods": (make_base(f=staticmethod(margin)), make_base(f=classmethod(margin))),
    "shared parameters": (tie(make_seeded(nn.Linear), False), tie(make_seeded(nn.Linear), True)),
    "classes made by torch": (
        parametrize(make_seeded(Layer)),
        parametrize(make_seeded(DoubledLayer)),
    ),
    "functions made by torch": (functional.max_pool1d, functional.max_pool2d),
    "names of arguments": (subtract, subtract_renamed),
    "defaults of dicts": (defaultdict(lambda: 1), defaultdict(lambda: 2)),
    "mappings": (types.MappingProxyType({"a": 1}), types.MappingProxyType({"a": 2})),
    "modules of Python": (ast, copy),
    "sets of functions": ({lambda: 1, lambda: 2}, {lambda: 1, lambda: 3}),
    "sparse tensors": (torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse()),
    "parameters": (Scaled(), shift(Scaled())),
    "numbers": (Scaled(), Scaled(scale=3.0)),
    "functions": (Scaled(), Scaled(activation=torch.relu)),
    "functions of Python": (Scaled(), Scaled(activation=functional.gelu)),
    "plain tensors": (Scaled(), Scaled(constant=2.0)),
    "code": (Scaled(), Edited()),
    "hooks": (Scaled(), double_output(Scaled())),
    "attributes outside repr": (attention(1), attention(2)),
    "criteria": (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
    "order": (nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU())),
    "closures": (power(2), power(3)),
    "lambdas": (lambda raw: raw[:, :1], lambda raw: raw[:, 1:]),
    "partial functions": (functools.partial(margin, 1), functools.partial(margin, 2)),
    "types": (1, 1.0),
    "nesting": ([[1], [2]], [[1, [2]]]),
    "bytes": (np.zeros(2, np.float32), np.zeros(1)),
}


@pytest.mark.parametrize(("value", "other"), PAIRS.values(), ids=PAIRS)
def test_different_contents_have_different_fingerprints(value, other):
    assert fingerprint_value(value) != fingerprint_value(other)


COPIES = [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
EQUAL = {
    "network": lambda: Scaled(),
    "attention": lambda: attention(2),
    "layers": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)),
    "function": lambda: margin,
    "partial function": lambda: functools.partial(margin, 1),
    "scaler": lambda: StandardScaler().fit(np.eye(3)),
    "settings": lambda: {"a": [1, "b", None], "c": (2.5, {3})},
}


@pytest.mark.parametrize("make", EQUAL.values(), ids=EQUAL)
@pytest.mark.parametrize("copy_value", COPIES)
def test_a_copy_has_the_same_fingerprint(make, copy_value):
    torch.manual_seed(0)
    value = make()
    assert fingerprint_value(copy_value(value)) == fingerprint_value(value)


def reload(value):
    return loads(dumps({"value": value}))["value"]


@pytest.fixture(scope="module")
def reloaded():
    """Fingerprints in another process: after one and two pickles by value, for each network."""
    data = {name: dumps({"value": build(name)}) for name in NETWORKS}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RELOAD],
        input=pickle.dumps(data),
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode()
    return pickle.loads(process.stdout)


RELOAD = """
import pickle, sys
from sknetsim._networks.fingerprint import fingerprint_value
from sknetsim._networks.persistence import dumps, loads
fingerprints = {}
for name, data in pickle.load(sys.stdin.buffer).items():
    first = loads(data)["value"]
    second = loads(dumps({"value": first}))["value"]
    fingerprints[name] = [fingerprint_value(first), fingerprint_value(second)]
pickle.dump(fingerprints, sys.stdout.buffer)
"""


of_each_network = pytest.mark.parametrize("name", NETWORKS)
pytestmark = pytest.mark.filterwarnings("ignore:.*(weight_norm|Lazy modules|torch.jit.script)")


def build(name):
    torch.manual_seed(0)
    return NETWORKS[name]()


@of_each_network
def test_pickles_by_value_keep_the_fingerprint(name):
    network = build(name)
    expected = fingerprint_value(network)
    once = reload(network)
    fingerprints = [fingerprint_value(value) for value in (network, once, reload(once))]
    assert fingerprints == [expected] * 3


@of_each_network
def test_reading_attributes_keeps_the_fingerprint(name):
    network = build(name)
    expected = fingerprint_value(network)
    for module in network.modules():
        for value in [*vars(module).values(), *vars(type(module)).values()]:
            getattr(value, "__dict__", None)
    assert fingerprint_value(network) == expected


@pytest.mark.slow
@of_each_network
def test_pickles_by_value_keep_the_fingerprint_in_another_process(name, reloaded):
    assert reloaded[name] == [fingerprint_value(build(name))] * 2


@of_each_network
def test_a_network_that_is_built_again_has_the_same_fingerprint(name):
    assert fingerprint_value(build(name)) == fingerprint_value(build(name))


def test_a_class_of_the_script_has_the_same_fingerprint_in_started_processes(monkeypatch):
    """multiprocessing calls the script __mp_main__ in the processes that it starts."""
    kind = type(make_base())
    monkeypatch.setattr(kind, "__module__", "__main__")
    before = fingerprint_value(kind)
    monkeypatch.setattr(kind, "__module__", "__mp_main__")
    assert fingerprint_value(kind) == before


def test_scripts_with_other_numbers_have_other_fingerprints():
    first, second = torch.jit.script(Gain(2.0)), torch.jit.script(Gain(3.0))
    assert fingerprint_value(first) != fingerprint_value(second)


def test_scripts_of_one_network_have_one_fingerprint():
    torch.manual_seed(0)
    network = nn.Sequential(Scaled(), nn.Linear(2, 2))
    first, second = torch.jit.script(network), torch.jit.script(copy.deepcopy(network))
    assert fingerprint_value(first) == fingerprint_value(second)


def test_a_memory_map_has_the_fingerprint_of_its_array(tmp_path):
    np.save(tmp_path / "array.npy", np.arange(6.0))
    mapped = np.load(tmp_path / "array.npy", mmap_mode="r")
    assert fingerprint_value({"array": mapped}) == fingerprint_value({"array": np.arange(6.0)})


def test_the_mode_does_not_change_the_fingerprint():
    network = Scaled().train()
    before = fingerprint_value(network)
    assert fingerprint_value(network.eval()) == before


def test_an_object_may_contain_itself():
    network = Scaled()
    network.__dict__["parent"] = [network]
    assert fingerprint_value(network) == fingerprint_value(network)


def test_scripted_networks_have_fingerprints():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    assert fingerprint_value(scripted) == fingerprint_value(scripted)
    assert fingerprint_value(scripted) != fingerprint_value(
        torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    )


@pytest.mark.slow
def test_another_process_computes_the_same_fingerprint():
    program = (
        "from tests.networks.test_fingerprint import Scaled, attention, power; "
        "from sknetsim._networks.fingerprint import fingerprint_value; "
        "print(fingerprint_value((Scaled(), attention(2), power(3))))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expected = fingerprint_value((Scaled(), attention(2), power(3)))
    assert process.stdout.strip() == expected, process.stderr


def test_a_class_of_this_package_keeps_its_fingerprint_in_another_module(monkeypatch):
    sketch = TensorSketch(8, 0)
    before = fingerprint_value((sketch, TensorSketch, check_features))
    monkeypatch.setattr(TensorSketch, "__module__", "sknetsim.elsewhere")
    monkeypatch.setattr(check_features, "__module__", "sknetsim.elsewhere")
    assert fingerprint_value((sketch, TensorSketch, check_features)) == before


def test_a_class_of_another_package_changes_its_fingerprint_in_another_module(monkeypatch):
    before = fingerprint_value(nn.Linear)
    monkeypatch.setattr(nn.Linear, "__module__", "torch.elsewhere")
    assert fingerprint_value(nn.Linear) != before


def test_class_names_of_this_package_are_unique():
    """Fingerprints identify classes of this package by their names alone."""
    names = Counter(
        node.name
        for path in Path(sknetsim.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


A, B = torch.arange(6.0).reshape(3, 2), torch.ones(3, 2)
ROWS = {
    "values": (A, A + 1),
    "order": (A, A.flip(0)),
    "number": (A, A[:2]),
    "shape": (A, A.reshape(3, 1, 2)),
    "names": ({"left": A, "right": B}, {"right": A, "left": B}),
    "large integers": (torch.tensor([[2**24]]), torch.tensor([[2**24 + 1]])),
}


@pytest.mark.parametrize(("X", "other"), ROWS.values(), ids=ROWS)
def test_different_samples_have_different_fingerprints(X, other):
    assert fingerprint_samples(Samples(X), torch.float32) != fingerprint_samples(
        Samples(other), torch.float32
    )


@pytest.mark.parametrize("form", [np.asarray, lambda X: X.double(), lambda X: X.long()])
def test_the_form_of_the_samples_does_not_change_the_fingerprint(form):
    assert fingerprint_samples(Samples(form(A)), torch.float32) == fingerprint_samples(
        Samples(A), torch.float32
    )
