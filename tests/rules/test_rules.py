"""All rules against a double loop of autograd, and on another device."""

import itertools

import pytest
import torch

from ..cases import LAYERS, build
from .loops import (
    apply_rule,
    call_rule,
    draw_cotangents,
    loop_gradients,
    names_of_parameters,
)

layers = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)


def build_layer(case):
    network, X = build(case)
    layer = network[0]
    return layer, X, draw_cotangents(layer, X)


@layers
def test_gradients_of_each_rule_equal_the_double_loop(case):
    layer, X, cotangents = build_layer(case)
    names = names_of_parameters(layer)
    _, gradients = apply_rule(layer, X, cotangents, names)
    assert list(gradients) == names
    for name in names:
        expected = loop_gradients(layer, X, cotangents, name)
        torch.testing.assert_close(gradients[name], expected)


@layers
def test_each_parameter_can_be_requested_on_its_own(case):
    layer, X, cotangents = build_layer(case)
    names = names_of_parameters(layer)
    _, together = apply_rule(layer, X, cotangents, names)
    for name in names:
        _, gradients = apply_rule(layer, X, cotangents, [name])
        assert list(gradients) == [name]
        torch.testing.assert_close(gradients[name], together[name])


@layers
def test_layouts_have_the_shapes_of_the_parameters(case):
    layer, X, cotangents = build_layer(case)
    blocks, _ = apply_rule(layer, X, cotangents, names_of_parameters(layer))
    for name, shape in itertools.chain.from_iterable(block.layout for block in blocks):
        assert getattr(layer, name).shape == shape


@layers
def test_rules_stay_on_the_networks_device(case):
    layer, X, cotangents = build_layer(case)
    layer, X, cotangents = layer.to("meta"), X.to("meta"), cotangents.to("meta")
    blocks = call_rule(layer, X, cotangents, names_of_parameters(layer))
    tensors = [tensor for block in blocks for tensor in block._tensors().values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
