"""Rule of transposed convolutions: convolutions with the roles of input and output exchanged.

Index legend: n samples; o outputs of the network; b images of a sample; t positions of the layer's
input; g groups; i input channels of a group; j = (output channel of a group, position in the
kernel). Each input a[n,t,g,i] adds W[g,i,j] a[n,t,g,i] to the window of the output at t. So the
gradient of the weight is that of a linear layer whose cotangents e[n,o,t,g,j] are windows of the
cotangents at the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .._kernels.blocks import Block
from .._kernels.layouts import Order
from ._factors import (
    crop,
    extract_windows,
    make_bias_block,
    make_factor_block,
    move_positions_first,
    repeat_number,
)
from ._registry import register_rule


@register_rule(
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
    arguments=(
        *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    ),
)
def transposed_convolution(
    arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return dW[g,i,j] = sum_t a[n,t,g,i] e[n,o,t,g,j] as factors, and the gradient of the bias.

    The gradient of the bias is the cotangent summed over the positions of the output.
    """
    dimensions = arguments["weight"].ndim - 2
    if arguments["input"].ndim != dimensions + 3:
        return NotImplemented  # An image without an axis of images.
    make_block = {
        "weight": lambda: _make_weight_block(arguments, cotangents),
        "bias": lambda: make_bias_block(
            arguments, "bias", move_positions_first(cotangents, dimensions)
        ),
    }
    return [make_block[name]() for name in names]


def _make_weight_block(arguments: Mapping[str, Any], cotangents: Tensor) -> Block:
    groups = arguments.get("groups", 1)
    # (n, b, channels, space...) -> (n, t, g, i)
    dimensions = arguments["weight"].ndim - 2
    activations = move_positions_first(arguments["input"], dimensions)
    activations = activations.unflatten(-1, (groups, -1))
    windows = _make_windows(arguments, cotangents, groups)
    # Stored as (g, j, i); the parameter is (g i, j).
    order = Order((groups, windows.shape[-1], activations.shape[-1]), (0, 2, 1))
    return make_factor_block(arguments, activations, windows, ["weight"], order)


def _make_windows(arguments: Mapping[str, Any], cotangents: Tensor, groups: int) -> Tensor:
    """Return the windows (n, o, t, g, j) of the cotangents, one per position of the input."""
    kernel_size, space = arguments["weight"].shape[2:], arguments["input"].shape[3:]
    dimensions = len(space)
    stride, padding, dilation = (
        repeat_number(arguments.get(name, default), dimensions)
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    widths = [width for size in reversed(padding) for width in (int(size), int(size))]
    padded = functional.pad(cotangents.flatten(0, 2), widths)
    windows = extract_windows(padded, kernel_size, stride, dilation)
    # (n o b, channels, positions..., kernel...) -> (n o b, channels, kernel..., positions...)
    windows = windows.movedim(tuple(range(2, 2 + dimensions)), tuple(range(-dimensions, 0)))
    # A large output padding allows more windows than there are inputs.
    windows = crop(windows, space).flatten(-dimensions).movedim(-1, 1)
    # (n o b, t, channels, kernel...) -> (n o b, t, g, j) -> (n, o, b t, g, j)
    windows = windows.unflatten(2, (groups, -1)).flatten(3)
    return windows.unflatten(0, cotangents.shape[:3]).flatten(2, 3)
