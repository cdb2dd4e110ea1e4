"""Gradients of one layer by the rule of its function, and by a double loop of autograd."""

import torch

from sknetsim._gradients.recording import Resolver, record_calls
from sknetsim.rules import find_function_rule

OUTPUTS = 3


def draw_cotangents(layer, X):
    """Return random cotangents of three outputs, of shape (n, o, ...)."""
    with torch.no_grad():
        shape = layer(X).shape
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(X), OUTPUTS, *shape[1:], generator=generator, dtype=torch.float64)


def find_use(layer, X, names=None):
    """Return the only use on samples of some parameters of a layer; of all by default."""
    parameters = dict(layer.named_parameters())
    with record_calls(layer, set(parameters if names is None else names), X) as tape:
        layer(X)
    (use,), unserved = Resolver().find_uses(tape, {}, map(id, parameters.values()), layer)
    assert not unserved
    return use


def call_rule(layer, X, cotangents, names):
    """Return what the rule of the layer's function returns.

    The rule gets batches of one sample, for example an input of shape (n, 1, ...).
    """
    use = find_use(layer, X, names)
    arguments = use.split_arguments(torch.Tensor.detach)
    rule = find_function_rule(use.call.function).rule
    with torch.no_grad():
        return rule(arguments, use.split_cotangents(cotangents.movedim(0, 1)), tuple(names))


def is_covered(layer, X):
    """Return whether the rule of the layer's function covers its arguments."""
    use = find_use(layer, X)
    entry = find_function_rule(use.call.function)
    if entry is None or not entry.parameters.issuperset(use.sources):
        return False
    cotangents = use.split_cotangents(torch.ones(OUTPUTS, *use.call.output_shapes[use.output]))
    arguments = use.split_arguments(torch.Tensor.detach)
    return entry.rule(arguments, cotangents, tuple(use.sources)) is not NotImplemented


def apply_rule(layer, X, cotangents, names):
    """Return the blocks of a rule, and their gradients (n, o, size) by argument."""
    blocks = call_rule(layer, X, cotangents, names)
    gradients = {}
    for block in blocks:
        sizes = [shape.numel() for _, shape in block.layout]
        parts = block.materialize().split(sizes, dim=2)
        for (name, _), part in zip(block.layout, parts, strict=True):
            gradients[name] = part
    return blocks, gradients


def loop_gradients(layer, X, cotangents, name):
    """Return the gradients (n, o, size) of one parameter, sample by sample, output by output."""
    parameter, rows = getattr(layer, name), []
    for n in range(len(X)):
        output = layer(X[n : n + 1])[0]
        for o in range(OUTPUTS):
            value = (output * cotangents[n, o]).sum()
            gradient = torch.autograd.grad(value, parameter, retain_graph=True)[0]
            rows.append(gradient.flatten())
    return torch.stack(rows).view(len(X), OUTPUTS, -1)


def names_of_parameters(layer):
    return [name for name, parameter in layer._parameters.items() if parameter is not None]


class Calling(torch.nn.Module):
    """A layer that calls a function of its input and of parameters of some shapes."""

    def __init__(self, function, *shapes):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.function = function
        self.weights = torch.nn.ParameterList(
            torch.randn(shape, generator=generator) for shape in shapes
        )

    def forward(self, X):
        return self.function(X, *self.weights)


def draw_inputs(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
