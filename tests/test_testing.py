"""`check_rule` accepts correct rules, and its errors name what is wrong."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sknetsim import UnsupportedNetworkError, register_rule
from sknetsim.rules import DenseBlock, _registry, layout_of
from sknetsim.testing import check_rule

from .cases import LAYERS, build


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Remove the rules of a test after it."""
    for name in ("_layers", "_functions"):
        monkeypatch.setattr(_registry, name, dict(getattr(_registry, name)))


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_the_rules_of_this_package_pass(case):
    network, X = build(case)
    check_rule(network[0], X)


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


#: Functions with the inputs and the arguments of the check.
FUNCTIONS = {
    "parameters by name": (functional.linear, (4, 3), {"weight": (2, 3), "bias": (2,)}),
    "no bias": (functional.linear, (4, 3), {"weight": (2, 3)}),
    "the input last": (torch.matmul, (4, 3, 2), {"input": (5, 3)}),
    "the input between parameters": (torch.addmm, (4, 3), {"input": (2,), "mat2": (3, 2)}),
    "a method": (torch.Tensor.matmul, (4, 2, 3), {"other": (3, 2)}),
    "options": (torch.conv1d, (4, 2, 7), {"weight": (4, 1, 3), "groups": 2, "stride": 2}),
    "constant tensors": (
        torch.instance_norm,
        (4, 2, 5),
        {
            **{"weight": (2,), "bias": (2,), "running_mean": (2,), "running_var": (2,)},
            **{"use_input_stats": False, "momentum": 0.1, "eps": 3.0, "cudnn_enabled": False},
        },
    ),
}


@pytest.mark.parametrize(("function", "shape", "arguments"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_rules_of_functions_pass(function, shape, arguments):
    tensors = {
        name: draw(*value) if isinstance(value, tuple) else value
        for name, value in arguments.items()
    }
    check_rule(function, draw(*shape), **tensors)


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


class Recurrent(nn.Module):
    """A layer that returns several tensors, and has layers of its own."""

    def __init__(self):
        super().__init__()
        self.cell, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)

    def forward(self, inputs):
        state = torch.tanh(self.cell(inputs))
        return self.norm(self.cell(state)), (state, state)


class Squared(torch.autograd.Function):
    """A square that vmap cannot vectorise."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Hidden(Scale):
    """A layer that uses a parameter in a function that is not recorded."""

    def forward(self, inputs):
        return inputs * Squared.apply(self.weight) + self.bias


X = draw(4, 3)


def test_a_layer_without_a_rule_of_its_own_passes_if_its_functions_have_rules():
    check_rule(Recurrent(), X)


def test_a_layer_passes_if_its_functions_are_vectorised():
    check_rule(Scale(), X)


def test_frozen_parameters_of_a_layer_are_checked_too():
    with pytest.raises(AssertionError, match=r"got those of \['weight'\] without rules"):
        check_rule(Hidden().requires_grad_(False), X)


def test_parameters_of_the_fallback_are_named():
    with pytest.raises(
        AssertionError,
        match=r"must compute all gradients by rules; got those of \['0.weight'\] without rules."
        " Call register_rule for the functions",
    ):
        check_rule(nn.Sequential(Hidden()), X)


def test_a_layer_whose_function_has_a_wrong_rule_raises_an_error():
    correct = _registry.find_function_rule(functional.linear).rule

    @register_rule(functional.linear, arguments=["input", "weight", "bias"])
    def double(arguments, cotangents, names):
        return [
            DenseBlock(block.layout, 2 * block.materialize())
            for block in correct(arguments, cotangents, names)
        ]

    with pytest.raises(AssertionError, match="If they have rules, correct those"):
        check_rule(nn.Linear(3, 2), X)
    with pytest.raises(AssertionError, match="gradient of 'weight' must equal that of autograd"):
        check_rule(functional.linear, X, weight=torch.ones(2, 3))


def test_a_rule_that_does_not_cover_the_arguments_raises_an_error():
    with pytest.raises(AssertionError, match=r"got NotImplemented for \['input', 'mat1', 'mat2'"):
        check_rule(torch.addmm, X, input=torch.ones(1, 2), mat2=torch.ones(3, 2))


def test_a_function_without_a_rule_raises_an_error():
    with pytest.raises(AssertionError, match="must be a layer or a function with a rule; got <"):
        check_rule(torch.exp, X)


BAD_ARGUMENTS = {
    "no parameter": {},
    "no place for X": dict.fromkeys(["input", "weight", "bias"], X),
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_arguments_without_a_parameter_or_a_place_for_the_input_raise_an_error(arguments):
    with pytest.raises(TypeError, match=r"among \['bias', 'weight'\], and leave out an argument"):
        check_rule(functional.linear, X, **arguments)


def test_arguments_of_a_layer_raise_an_error():
    with pytest.raises(TypeError, match=r"got \['weight'\] for a layer. Pass the layer and X only"):
        check_rule(nn.Linear(3, 2), X, weight=X)


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
        AssertionError,
        match=r"got those of \['weight'\] without rules.* overwrites its input",
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


def test_a_layer_without_parameters_raises_an_error():
    with pytest.raises(AssertionError, match=r"got ReLU\(\) without any.* needs no rule"):
        check_rule(nn.ReLU(), X)


def test_a_layer_with_more_parameters_than_its_rule_names_raises_an_error():
    register_rule(Scale, parameters=["weight"])(scale())
    with pytest.raises(AssertionError, match=r"are \['weight', 'bias'\],.* Name all of these"):
        check_rule(Scale(), X)
