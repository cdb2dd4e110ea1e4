"""Parts of the networks of all families.

Index legend: n samples, t positions, i features.
"""

import torch
from torch import nn

from ..cases import Case, normal

#: Positions of a sample, its features, and the width of hidden layers.
POSITIONS, FEATURES, WIDTH = 4, 5, 6


class Between(nn.Module):
    """Network of a linear layer, a function of its output, tanh and a linear layer.

    ``compute`` is a function of the network and of the hidden values (n, t, i). The network has
    parameters of the given shapes, by name.
    """

    def __init__(self, compute, modules=None, **shapes):
        super().__init__()
        self.compute = compute
        self.body, self.head = nn.Linear(FEATURES, WIDTH), nn.LazyLinear(2)
        for name, module in (modules or {}).items():
            self.add_module(name, module)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))

    def forward(self, samples):
        hidden = self.compute(self, self.body(samples))
        return self.head(torch.tanh(hidden).flatten(1))


def make_case(name, compute, make_modules=None, **shapes):
    """Return the case of a network `Between`; ``make_modules`` returns its modules by name."""

    def build():
        return Between(compute, make_modules and make_modules(), **shapes)

    return Case(name, build, normal(POSITIONS, FEATURES))
