"""check_rule: rules that are right pass, and what is wrong is told."""

import pytest
import torch
from torch import nn

from sknetsim import register_rule
from sknetsim.rules import DenseBlock, _registry, layout_of
from sknetsim.testing import check_rule

from .cases import LAYERS, build


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Rules of these tests are forgotten after them."""
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


class ScaleAcross(Scale):
    """Puts something else than samples in front."""

    def forward(self, inputs):
        return super().forward(inputs).mean(dim=0, keepdim=True).expand_as(inputs)


def scale(wrong=None):
    """The right rule of `Scale`, or one with an error."""

    def rule(module, inputs, cotangents, names):
        gradients = {"weight": cotangents * inputs[:, None], "bias": cotangents}
        if wrong in gradients:
            gradients[wrong] = 2 * gradients[wrong]
        names = names[:1] if wrong == "names" else names
        kind = Crooked if wrong == "block" else DenseBlock
        return [kind(layout_of(module, [name]), gradients[name]) for name in names]

    return rule


class Crooked(DenseBlock):
    def trace_gram(self, other):
        return super().trace_gram(other) + 1


X = torch.randn(4, 3)


def test_a_right_rule_passes_and_the_layer_stays_as_it_was():
    register_rule(Scale)(scale())
    layer = Scale()
    layer.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    check_rule(layer, X.numpy())
    after = layer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert layer.training and not layer.weight.requires_grad
    assert layer.weight.dtype is torch.float32


WRONG = {
    "weight": r"gradient of 'weight' is .* from autograd's in sample \d",
    "bias": "gradient of 'bias' is",
    "names": r"blocks are of the parameters \['weight'\], and it was asked for",
    "block": "trace_gram of the rule's blocks is",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told(wrong):
    register_rule(Scale)(scale(wrong))
    with pytest.raises(AssertionError, match=WRONG[wrong]):
        check_rule(Scale(), X)


def test_a_layer_without_a_rule_is_told():
    with pytest.raises(AssertionError, match=r"Scale has no rule for its parameters \['weight'"):
        check_rule(Scale(), X)


def test_a_layer_with_more_parameters_than_its_rule_knows_is_told():
    register_rule(Scale, parameters=["weight"])(scale())
    with pytest.raises(AssertionError, match="name all of them"):
        check_rule(Scale(), X)
