"""Which layers and functions have which rule, and what the folder exports."""

import pytest
import torch
from torch import nn

import sknetsim
from sknetsim import rules
from sknetsim.rules import (
    DenseBlock,
    _registry,
    find_function_rule,
    find_rule,
    has_rule,
    layout_of,
    register_rule,
)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Remove the rules of a test after it."""
    for name in ("_layers", "_functions"):
        monkeypatch.setattr(_registry, name, dict(getattr(_registry, name)))


class Scale(nn.Module):
    """A layer without a rule of this package."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, inputs):
        return self.weight * inputs


def scale(module, inputs, cotangents, names):
    return [DenseBlock(layout_of(module, names), cotangents * inputs[:, None])]


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
    class Other(Scale):
        pass

    register_rule(Scale, parameters=["weight"])(scale)
    assert find_rule(Other()) is None


def test_a_layer_whose_forward_was_replaced_has_no_rule():
    register_rule(Scale, parameters=["weight"])(scale)
    layer = Scale()
    layer.forward = lambda inputs: inputs
    assert find_rule(layer) is None


def test_a_layer_with_more_parameters_than_the_rule_names_has_no_rule():
    register_rule(Scale, parameters=["weight"])(scale)
    layer = Scale()
    layer.register_parameter("scale", nn.Parameter(torch.ones(2)))
    assert find_rule(layer) is None


def test_a_layer_with_fewer_parameters_than_the_rule_names_has_the_rule():
    register_rule(Scale, parameters=["weight", "bias"])(scale)
    assert find_rule(Scale()) is scale


def test_a_type_has_a_rule_even_if_it_does_not_apply_to_a_layer():
    assert not has_rule(Scale)
    register_rule(Scale, parameters=["bias"])(scale)
    assert has_rule(Scale) and find_rule(Scale()) is None


def test_a_rule_of_functions_is_found_with_the_names_of_their_arguments():
    assert find_function_rule(torch.mul) is None
    register_rule(torch.mul, torch.Tensor.mul, parameters=["other"], arguments=["input", "other"])(
        scale
    )
    entry = find_function_rule(torch.mul)
    assert entry == find_function_rule(torch.Tensor.mul)
    assert entry.rule is scale and entry.arguments == ("input", "other")


def test_a_later_rule_replaces_an_earlier_one():
    names = {"parameters": ["weight"], "arguments": ["input", "weight"]}
    register_rule(nn.functional.linear, **names)(scale)
    assert find_function_rule(nn.functional.linear).rule is scale


@pytest.mark.parametrize(
    "target", [torch.Tensor, int, "linear", None, nn.Linear(2, 2)], ids=lambda value: str(value)
)
def test_a_target_that_is_no_function_and_no_type_of_layer_raises_an_error(target):
    with pytest.raises(TypeError, match="`targets` must be functions of torch or types of layers"):
        register_rule(nn.Linear, target, arguments=["weight", "bias"])
    assert find_rule(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("arguments", [(), ("input", "weight")])
def test_a_function_without_the_names_of_all_parameters_raises_an_error(arguments):
    with pytest.raises(TypeError, match=r"with those in `parameters` \(bias, weight\); got \("):
        register_rule(torch.mul, arguments=arguments)


def test_a_layout_has_the_names_and_shapes_in_the_requested_order():
    layer = nn.Linear(3, 2)
    assert layout_of(layer, ["bias", "weight"]) == (
        ("bias", torch.Size([2])),
        ("weight", torch.Size([2, 3])),
    )


def test_a_layout_of_arguments_has_their_names_and_shapes():
    arguments = {"input": torch.ones(4, 3), "weight": torch.ones(2, 3)}
    assert layout_of(arguments, ["weight"]) == (("weight", torch.Size([2, 3])),)
