"""Gradients of one layer by a rule, and by a double loop of autograd."""

import torch

from sknetsim.rules import find_rule

OUTPUTS = 3


def draw_cotangents(layer, X):
    """Return random cotangents of three outputs, of shape (n, o, ...)."""
    with torch.no_grad():
        shape = layer(X).shape
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(X), OUTPUTS, *shape[1:], generator=generator, dtype=torch.float64)


def apply_rule(layer, X, cotangents, names):
    """Return the blocks of a rule, and their gradients (n, o, size) by parameter."""
    with torch.no_grad():
        blocks = find_rule(layer)(layer, X, cotangents, tuple(names))
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
