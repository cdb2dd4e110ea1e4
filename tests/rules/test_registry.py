"""Which layers have which rule, and what the folder exports."""

import pytest
import torch
from torch import nn

import sknetsim
from sknetsim import rules
from sknetsim.rules import DenseBlock, _registry, find_rule, layout_of, register_rule

from ..cases import LAYERS, build


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Remove the rules of a test after it."""
    monkeypatch.setattr(_registry, "_registry", dict(_registry._registry))


class Scale(nn.Module):
    """A layer without a rule of this package."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, inputs):
        return self.weight * inputs


def scale(module, inputs, cotangents, names):
    return [DenseBlock(layout_of(module, names), cotangents * inputs[:, None])]


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_importing_the_folder_registers_the_rule_of_each_layer(case):
    network, _ = build(case)
    assert find_rule(network[0]) is not None


def test_the_folder_exports_no_modules():
    exported = {name: getattr(rules, name) for name in rules.__all__}
    assert set(exported) == {"Block", "DenseBlock", "FactorBlock", "layout_of", "register_rule"}
    assert sknetsim.register_rule is rules.register_rule


def test_a_decorated_rule_is_returned_and_found():
    assert find_rule(Scale()) is None
    assert register_rule(Scale, parameters=["weight"])(scale) is scale
    assert find_rule(Scale()) is scale


def test_a_rule_can_be_registered_for_several_types():
    class Other(Scale):
        pass

    register_rule(Scale, Other, parameters=["weight"])(scale)
    assert find_rule(Scale()) is find_rule(Other()) is scale


def test_a_subclass_does_not_inherit_a_rule():
    class OwnLinear(nn.Linear):
        pass

    assert find_rule(nn.Linear(2, 2)) is not None
    assert find_rule(OwnLinear(2, 2)) is None


def test_a_layer_whose_forward_was_replaced_has_no_rule():
    layer = nn.Linear(2, 2)
    layer.forward = lambda inputs: inputs
    assert find_rule(layer) is None


def test_a_layer_with_more_parameters_than_the_rule_names_has_no_rule():
    layer = nn.Linear(2, 2)
    layer.register_parameter("scale", nn.Parameter(torch.ones(2)))
    assert find_rule(layer) is None


def test_a_layer_with_fewer_parameters_than_the_rule_names_has_the_rule():
    assert find_rule(nn.Linear(2, 2, bias=False)) is find_rule(nn.Linear(2, 2))


def test_a_layout_has_the_names_and_shapes_in_the_requested_order():
    layer = nn.Linear(3, 2)
    assert layout_of(layer, ["bias", "weight"]) == (
        ("bias", torch.Size([2])),
        ("weight", torch.Size([2, 3])),
    )
