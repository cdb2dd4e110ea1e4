"""Equal contents have equal fingerprints in all objects and processes; others differ."""

import ast
import copy
import functools
import pickle
import subprocess
import sys
from collections import Counter
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
from sknetsim._networks.samples import Samples


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


PAIRS = {
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
