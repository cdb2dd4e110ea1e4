"""Blocks of the parameters that rules serve, from the calls of their layers.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from .._kernels.blocks import Block, add_blocks
from ..rules import find_rule
from .capture import LayerCall
from .parameters import Plan


def compute_served_blocks(
    plan: Plan, calls: list[LayerCall], cotangents: list[Tensor | None], graph: bool = False
) -> dict[tuple[str, ...], Block]:
    """Return the block of each group of served parameters, by the names of its parameters.

    Parameters
    ----------
    plan : Plan
        Groups of parameters that the rules serve.
    calls : list of LayerCall
        Calls of the served layers.
    cotangents : list of (Tensor of shape (n, d, ...) or None)
        Cotangents at each call; None for zero.
    graph : bool
        Whether the inputs keep their autograd graph; cotangents always keep theirs.
    """
    # A layer may be called several times, and a tied parameter belongs to several layers:
    # J_o(x_n) = sum over calls of the rule at (inputs_n, c[n,o]).
    parts: dict[tuple[str, ...], list[Block]] = defaultdict(list)
    for call, cotangent in zip(calls, cotangents, strict=True):
        if cotangent is None:
            continue
        rule = find_rule(call.layer)
        assert rule is not None
        for group in plan.groups[call.layer]:
            for block in rule(call.layer, *_cast(call, cotangent, graph), group):
                named = tuple((plan.names[call.layer, name], shape) for name, shape in block.layout)
                parts[tuple(name for name, _ in named)].append(replace(block, layout=named))
    return {key: add_blocks(blocks) for key, blocks in parts.items()}


def _cast(call: LayerCall, cotangent: Tensor, graph: bool) -> tuple[Tensor, Tensor]:
    """Return inputs and cotangents in the dtype of the layer.

    They have another dtype if the network enables autocast itself.
    """
    dtype = next(parameter.dtype for parameter in call.layer.parameters(recurse=False))
    inputs = call.inputs if graph else call.inputs.detach()
    floating = inputs.is_floating_point()
    return (inputs.to(dtype) if floating else inputs), cotangent.to(dtype)


def is_used_outside(plan: Plan, calls: list[LayerCall], uses: Mapping[int, int]) -> bool:
    """Return whether a parameter of a rule is used outside the calls of its layers.

    Its gradient may then be correct in one chunk and wrong in another.
    """
    expected: Counter[int] = Counter()
    for call in calls:
        for local in itertools.chain(*plan.groups[call.layer]):
            parameter = id(call.layer._parameters[local])
            expected[parameter] += call.edge is not None and parameter in call.parameters
    return any(uses.get(parameter, 0) > count for parameter, count in expected.items())
