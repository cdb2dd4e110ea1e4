"""Blocks of parameters that a network uses through tensors derived from them."""

import functools

import pytest
import torch
from torch.autograd.functional import jacobian

from sknetsim._kernels.parameter_maps import AutogradMap, IdentityMap, IndexMap, NormalizedMap
from sknetsim._kernels.sum_blocks import Summand, make_sum_block
from sknetsim.rules.decompositions import weight_norm

from .random_blocks import GROUPS, OUT, WIDTH, make_dense_block, make_embedding_block
from .random_blocks import make_factor_block as make_factors

ROWS = GROUPS * OUT
SHAPES = {
    "wide": (2 * ROWS, WIDTH),
    "wide_bias": (2 * ROWS,),
    "weight": (ROWS, WIDTH),
    "bias": (ROWS,),
    "length": (ROWS, 1),
    "column_length": (1, WIDTH),
    "whole_length": (),
    "bias_length": (ROWS,),
    "first": (ROWS, 2),
    "second": (2, WIDTH),
    "table": (9, OUT),
    "head": (7, OUT),
}


def make_parameters(names):
    generator = torch.Generator().manual_seed(0)
    drawn = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }
    return [drawn[name].requires_grad_() for name in names]


class Derivation:
    """A map to a tensor that a function computes from named parameters, and its matrix D."""

    def __init__(self, kind, function, *names):
        self.kind, self.function, self.names = kind, function, names
        parameters = make_parameters(names)
        layout = tuple((name, torch.Size(SHAPES[name])) for name in names)
        if kind is IdentityMap:
            self.map = IdentityMap(layout)
        elif kind is IndexMap:
            numbers = torch.arange(parameters[0].numel()).view(parameters[0].shape)
            self.map = IndexMap(layout, function(numbers).flatten())
        elif kind is NormalizedMap:
            self.map = NormalizedMap(layout, *parameters, function.keywords["dim"])
        else:
            self.map = AutogradMap(layout, function(*parameters), parameters)

    def define_matrix(self):
        """Return D, of shape (w, p) for each parameter, by name."""
        parameters = make_parameters(self.names)
        matrices = jacobian(self.function, tuple(parameters))
        return {
            name: matrix.reshape(-1, parameter.numel())
            for name, parameter, matrix in zip(self.names, parameters, matrices, strict=True)
        }


def identity(name):
    return Derivation(IdentityMap, lambda p: p.clone(), name)


def select(function, name):
    return Derivation(IndexMap, function, name)


def compute(function, *names):
    return Derivation(AutogradMap, function, *names)


def normalize(v, g):
    return v * (g / v.norm(dim=1, keepdim=True))


def normalize_along(dim, *names):
    return Derivation(NormalizedMap, functools.partial(weight_norm, dim=dim), *names)


def adapt(weight, first, second):
    return weight + first @ second


DERIVATIONS = {
    "identity": identity("weight"),
    "rows": select(lambda p: p[2:5], "wide"),
    "transposed": select(lambda p: p.T, "weight"),
    "repeated rows": select(lambda p: p[[0, 0, 3]], "weight"),
    "normalized": compute(normalize, "weight", "length"),
    "normalized rows": normalize_along(0, "weight", "length"),
    "normalized columns": normalize_along(1, "weight", "column_length"),
    "normalized as a whole": normalize_along(-1, "weight", "whole_length"),
    "normalized elements": normalize_along(0, "bias", "bias_length"),
    "adapted": compute(adapt, "weight", "first", "second"),
    "sum of two": compute(lambda a, b: a[:ROWS] + b, "wide", "weight"),
    "exponential": compute(torch.exp, "bias"),
}

#: Each kind of sum: its parts, as blocks with the derivation of each entry of their layout.
ORTHOGONAL = {
    "halves": lambda n: [
        (make_factors(n, 3), [select(lambda p: p[:ROWS], "wide")]),
        (make_factors(n, 1), [select(lambda p: p[ROWS:], "wide")]),
    ],
    "halves with a bias": lambda n: [
        (
            make_factors(n, 1, bias=True),
            [select(lambda p, h=half: p.chunk(2)[h], name) for name in ("wide", "wide_bias")],
        )
        for half in (0, 1)
    ],
    "some rows": lambda n: [(make_factors(n, 3), [select(lambda p: p[3 : 3 + ROWS], "wide")])],
    "rows and an identity": lambda n: [
        (make_factors(n, 3), [select(lambda p: p[:ROWS], "wide")]),
        (make_dense_block(n, [ROWS]), [identity("bias")]),
    ],
    "rows of a table": lambda n: [
        (make_embedding_block(n, 5), [select(lambda p: p[1:8], "table")])
    ],
}
OTHERS = {
    "overlapping rows": lambda n: [
        (make_factors(n, 3), [select(lambda p: p[:ROWS], "wide")]),
        (make_factors(n, 3), [select(lambda p: p[3 : 3 + ROWS], "wide")]),
    ],
    "repeated row": lambda n: [(make_factors(n, 1), [select(lambda p: p[[1] * ROWS], "wide")])],
    "tied and transposed": lambda n: [
        (make_embedding_block(n, 5), [identity("head")]),
        (make_dense_block(n, [OUT, 7]), [select(lambda p: p.T, "head")]),
    ],
    "normalized with a bias": lambda n: [
        (
            make_factors(n, 3, bias=True),
            [compute(normalize, "weight", "length"), identity("bias")],
        )
    ],
    "normalized rows": lambda n: [(make_factors(n, 3), [normalize_along(0, "weight", "length")])],
    "normalized columns with a bias": lambda n: [
        (
            make_factors(n, 3, bias=True),
            [normalize_along(1, "weight", "column_length"), identity("bias")],
        )
    ],
    "normalized rows, used twice": lambda n: [
        (make_factors(n, positions), [normalize_along(0, "weight", "length")])
        for positions in (1, 3)
    ],
    "adapted": lambda n: [(make_factors(n, 3), [compute(adapt, "weight", "first", "second")])],
    "adapted and used": lambda n: [
        (make_factors(n, 1), [compute(adapt, "weight", "first", "second")]),
        (make_factors(n, 3, bias=True), [identity("weight"), identity("bias")]),
        (make_dense_block(n, [ROWS]), [compute(torch.exp, "bias")]),
    ],
}
SUMS = ORTHOGONAL | OTHERS
sums = pytest.mark.parametrize("make_parts", SUMS.values(), ids=SUMS)

_derivations = {}


def make_sum(make_parts, samples):
    """Return the block of some parts. Blocks of the same kind have the same maps."""
    parts = make_parts(samples)
    kept = _derivations.setdefault(make_parts, [derivations for _, derivations in parts])
    entries = [entry for derivations in kept for d in derivations for entry in d.map.layout]
    layout = tuple(dict(entries).items())
    return make_sum_block(
        layout,
        [
            Summand(block, tuple(derivation.map for derivation in derivations))
            for (block, _), derivations in zip(parts, kept, strict=True)
        ],
    )


def define_gradients(make_parts, block):
    """Return the sum over the parts of J_w D, from the matrices D."""
    total = {
        name: torch.zeros(*block.parts[0].block.materialize().shape[:2], shape.numel()).double()
        for name, shape in block.layout
    }
    for part, derivations in zip(block.parts, _derivations[make_parts], strict=True):
        sizes = [shape.numel() for _, shape in part.block.layout]
        entries = part.block.materialize().split(sizes, dim=2)
        for gradients, derivation in zip(entries, derivations, strict=True):
            for name, matrix in derivation.define_matrix().items():
                total[name] += gradients @ matrix
    return torch.cat(list(total.values()), dim=2)
