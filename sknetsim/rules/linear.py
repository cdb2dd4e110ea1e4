"""Rules of products with a matrix of weights, at one or several positions (tokens, time steps).

Index legend: n samples; o outputs of the network; t positions; g groups; j output and i input
channels of a group. The layers compute y[n,t,g,j] = sum_i W[g,j,i] a[n,t,g,i] + b[j].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .._kernels.blocks import Block
from .._kernels.layouts import PLAIN_ORDER, Order
from ._factors import make_bias_block, make_factor_block
from ._registry import register_rule

_MATMUL = (
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    torch.mm,
    Tensor.mm,
    torch.bmm,
    Tensor.bmm,
)


@register_rule(functional.linear, arguments=("input", "weight", "bias"))
def linear(arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return dW[j,i] = sum_t e[n,o,t,j] a[n,t,i] and db[j] = sum_t e[n,o,t,j], as factors."""
    if arguments["weight"].ndim != 2:
        return NotImplemented
    return _make_layer_blocks(arguments, "input", "weight", cotangents, names)


@register_rule(
    torch.addmm,
    Tensor.addmm,
    parameters=("input", "mat2"),
    arguments=("input", "mat1", "mat2", "beta", "alpha"),
)
def addmm(arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return the gradients of W = mat2, of shape (i, j), and of the bias, ``input``.

    The layer computes y = alpha a W + beta b.
    """
    if "input" in names and arguments["input"].ndim != 1:
        return NotImplemented
    order = _make_transposed_order(arguments["mat2"])
    factors = {"mat2": arguments.get("alpha", 1), "input": arguments.get("beta", 1)}
    # Parameters with the same factor share a block.
    groups = [tuple(n for n in names if factors[n] == f) for f in {factors[n] for n in names}]
    blocks: list[Block] = []
    for group in groups:
        factor = factors[group[0]]
        scaled = cotangents if factor == 1 else factor * cotangents
        blocks += _make_layer_blocks(arguments, "mat1", "mat2", scaled, group, order)
    return blocks


@register_rule(*_MATMUL, parameters=("input", "other"), arguments=("input", "other"))
def matmul(arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return the gradients of W in a W or W a, also of one W for each group.

    They are sum_t e[n,o,t,g,j] a[n,t,g,i]. The weight has the shape (i, j) or (g, i, j) in a W, and
    (j, i) or (g, j, i) in W a.
    """
    (name,) = names if len(names) == 1 else (None,)
    if name is None or arguments[name].ndim not in (2, 3):
        return NotImplemented
    weight = arguments[name]
    inputs = arguments["input" if name == "other" else "other"]
    groups = weight.ndim - 2
    # A vector would be multiplied without an axis of positions.
    if inputs.ndim < 3 + groups or cotangents.ndim < inputs.ndim + 1:
        return NotImplemented
    if groups and (inputs.shape[-3] != len(weight) or cotangents.shape[-3] != len(weight)):
        return NotImplemented
    if name == "input":
        inputs, cotangents = inputs.mT, cotangents.mT
        order = Order((len(weight), *weight.shape[1:]), (0, 1, 2)) if groups else Order()
    else:
        order = _make_transposed_order(weight)
    activations = _move_groups(inputs, 1, groups)
    cotangents = _move_groups(cotangents, 2, groups)
    return [make_factor_block(arguments, activations, cotangents, names, order)]


def _make_layer_blocks(
    arguments: Mapping[str, Any],
    inputs: str,
    weight: str,
    cotangents: Tensor,
    names: tuple[str, ...],
    order: Order = PLAIN_ORDER,
) -> list[Block]:
    """Return the block of a weight and its bias, or of one of them.

    The inputs and the weight are given by their names among the arguments.
    """
    rows = _merge_positions(cotangents, 2)
    if weight not in names:
        (bias,) = names
        return [make_bias_block(arguments, bias, rows)]
    activations = _merge_positions(arguments[inputs], 1)[:, :, None]
    in_order = [weight, *(name for name in names if name != weight)]
    return [make_factor_block(arguments, activations, rows[:, :, :, None], in_order, order)]


def _make_transposed_order(weight: Tensor) -> Order:
    """Return the order of a weight (i, j) or (g, i, j), which is stored as (g, j, i)."""
    shape = weight.shape if weight.ndim == 3 else (1, *weight.shape)
    return Order((shape[0], shape[2], shape[1]), (0, 2, 1))


def _merge_positions(values: Tensor, start: int) -> Tensor:
    """Return (..., t, c), where t are all axes from ``start`` on but the last."""
    return values.reshape(*values.shape[:start], -1, values.shape[-1])


def _move_groups(values: Tensor, start: int, groups: int) -> Tensor:
    """Return (..., t, g, c) from (..., b, t, c) or (..., b, g, t, c), with ``start`` axes kept."""
    values = values.transpose(-3, -2) if groups else values.unsqueeze(-2)
    return values.reshape(*values.shape[:start], -1, *values.shape[-2:])
