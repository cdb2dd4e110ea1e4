"""`check_rule` accepts correct rules, and its errors name what is wrong."""

import pytest
import torch
from torch import nn

from sknetsim import UnsupportedNetworkError, register_rule
from sknetsim.rules import DenseBlock, _registry, layout_of
from sknetsim.testing import check_rule

from .cases import LAYERS, build


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Remove the rules of a test after it."""
    monkeypatch.setattr(_registry, "_registry", dict(_registry._registry))


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_the_rules_of_this_package_pass(case):
    network, X = build(case)
    check_rule(network[0], X)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))
        self.bias = nn.Parameter(torch.rand(3))

    def forward(self, inputs):
        return self.weight * inputs + self.bias


class Total(Scale):
    """A layer with one output per sample."""

    def forward(self, inputs):
        return super().forward(inputs).sum(dim=1)


class InPlace(Scale):
    """A layer that overwrites its input."""

    def forward(self, inputs):
        return inputs.mul_(self.weight).add_(self.bias)


class Mixing(Scale):
    """A layer that adds the mean of the batch."""

    def forward(self, inputs):
        return super().forward(inputs) + super().forward(inputs).mean(dim=0)


def scale(wrong=None):
    """Return the correct rule of `Scale`, or one with an error."""

    def rule(module, inputs, cotangents, names):
        gradients = {"weight": cotangents * inputs[:, None], "bias": cotangents}
        if wrong in gradients:
            gradients[wrong] = 2 * gradients[wrong]
        names = names[:1] if wrong == "names" else names
        kind = AsymmetricBlock if wrong == "block" else DenseBlock
        return [kind(layout_of(module, [name]), gradients[name]) for name in names]

    return rule


class AsymmetricBlock(DenseBlock):
    """A block whose trace gram is wrong for blocks of different lengths."""

    def trace_gram(self, other):
        return super().trace_gram(other) * (1 if len(self) == len(other) else 2)

    def __len__(self):
        return len(self.materialize())


X = torch.randn(4, 3)


def test_a_correct_rule_passes_and_the_layer_is_not_changed():
    register_rule(Scale)(scale())
    layer = Scale()
    layer.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    check_rule(layer, X.numpy())
    after = layer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert layer.training and not layer.weight.requires_grad
    assert layer.weight.dtype is torch.float32


def test_a_layer_that_overwrites_its_input_raises_an_error():
    register_rule(InPlace)(scale())
    given = X.clone()
    with pytest.raises(
        AssertionError, match=r"must use the rule; got gradients of .* overwrites its input"
    ):
        check_rule(InPlace(), given)
    assert torch.equal(given, X)


def test_a_correct_rule_of_a_single_output_passes():
    @register_rule(Total)
    def total(module, inputs, cotangents, names):
        wide = cotangents[..., None].expand(*cotangents.shape, inputs.shape[1])
        return scale()(module, inputs, wide, names)

    check_rule(Total(), X)


def test_the_global_random_state_is_not_changed():
    layer, before = nn.Linear(3, 2), torch.get_rng_state()
    check_rule(layer, X)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_rule_that_ignores_the_requested_names_raises_an_error():
    @register_rule(Scale)
    def greedy(module, inputs, cotangents, names):
        return scale()(module, inputs, cotangents, ("weight", "bias"))

    with pytest.raises(AssertionError, match=r"must contain each of \['(weight|bias)'\] once; got"):
        check_rule(Scale(), X)


def test_a_layer_that_mixes_samples_raises_an_error():
    register_rule(Mixing)(scale())
    with pytest.raises((AssertionError, UnsupportedNetworkError)):
        check_rule(Mixing(), X)


@pytest.mark.parametrize("given", [X[:1], torch.ones(3, 3), (X, X)], ids=["one", "same", "two"])
def test_inputs_without_two_different_samples_raise_an_error(given):
    with pytest.raises(
        ValueError, match="`X` must be one array of at least two different samples; got"
    ):
        check_rule(nn.Linear(3, 2), given)


WRONG = {
    "weight": r"gradient of 'weight' must equal that of autograd; got .* in sample \d",
    "bias": "gradient of 'bias' must equal",
    "names": r"must contain each of \['bias', 'weight'\] once; got \['weight'\]",
    "block": "trace_gram of the rule's blocks must be",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_error_names_what_is_wrong(wrong):
    register_rule(Scale)(scale(wrong))
    with pytest.raises(AssertionError, match=WRONG[wrong]):
        check_rule(Scale(), X)


def test_a_layer_without_a_rule_raises_an_error():
    with pytest.raises(
        AssertionError, match=r"got a Scale with parameters \['weight', 'bias'\] and no rule"
    ):
        check_rule(Scale(), X)
    with pytest.raises(AssertionError, match="without parameters of its own needs no rule"):
        check_rule(nn.ReLU(), X)


def test_a_layer_with_more_parameters_than_its_rule_names_raises_an_error():
    register_rule(Scale, parameters=["weight"])(scale())
    with pytest.raises(AssertionError, match="name all of these parameters"):
        check_rule(Scale(), X)
