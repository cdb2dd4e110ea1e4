"""Rule of convolutions in one, two and three dimensions.

Index legend: n samples; o outputs of the network; b images of a sample; t positions of the layer's
output; g groups; k positions in the kernel; c input and j output channels of a group. A convolution
is a linear layer on windows: y[n,t,g,j] = sum_i W[g,j,i] a[n,t,g,i] + b[g,j], where a[n,t,g,i] is
the window of the padded input at t and i = (k, c). The channels c come last in i, so that
neighbouring windows are copied in long runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional, grad

from .._kernels.blocks import Block, DenseBlock
from .._kernels.layouts import Order
from ._factors import (
    extract_windows,
    make_bias_block,
    make_factor_block,
    move_positions_first,
    repeat_number,
)
from ._registry import layout_of, register_rule, register_rule_for_sums

# Gradient of the weight of a convolution, by the number of its dimensions.
_WEIGHT_GRADIENTS = {1: grad.conv1d_weight, 2: grad.conv2d_weight, 3: grad.conv3d_weight}


_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)


@register_rule(
    *_CONVOLUTIONS,
    arguments=("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
)
def convolution(
    arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return dW[g,j,i] = sum_t e[n,o,t,g,j] a[n,t,g,i] and db[g,j] = sum_t e, as factors."""
    if arguments["input"].ndim != arguments["weight"].ndim + 1:
        return NotImplemented  # An image without an axis of images.
    moved = _move_positions(arguments, cotangents)
    if "weight" not in names:
        return [make_bias_block(arguments, "bias", moved)]
    in_order = ["weight", *(name for name in names if name != "weight")]
    return [_make_weight_block(arguments, moved, in_order)]


@register_rule_for_sums(*_CONVOLUTIONS)
def convolution_for_sums(
    arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return a block of the weight, which is written out if that is faster, and one of the bias.

    A bias with a block of its own needs no column in the matrix of the windows.
    """
    if arguments["input"].ndim != arguments["weight"].ndim + 1:
        return NotImplemented
    moved = _move_positions(arguments, cotangents)
    is_written = _is_small_depthwise(arguments, moved)
    make_block = {
        "weight": lambda: (
            _write_weight_block(arguments, cotangents)
            if is_written
            else _make_weight_block(arguments, moved, ["weight"])
        ),
        "bias": lambda: make_bias_block(arguments, "bias", moved),
    }
    return [make_block[name]() for name in names]


def _move_positions(arguments: Mapping[str, Any], cotangents: Tensor) -> Tensor:
    """Return (n, o, t, channels) from cotangents (n, o, b, channels, space...)."""
    return move_positions_first(cotangents, arguments["weight"].ndim - 2)


def _is_small_depthwise(arguments: Mapping[str, Any], cotangents: Tensor) -> bool:
    """Return whether each channel is a group whose gradient is no larger than its factors.

    On a CPU, they are written out much faster by torch than from the factors.
    """
    weight, groups = arguments["weight"], arguments.get("groups", 1)
    if not groups == len(weight) > 1 or weight.device.type != "cpu":
        return False
    _, outputs, positions, channels = cotangents.shape
    width, rows = weight.shape[1:].numel(), outputs * channels // groups
    return rows * width <= positions * (rows + width)


def _write_weight_block(arguments: Mapping[str, Any], cotangents: Tensor) -> DenseBlock:
    """Return the block of the weight written out, from cotangents of shape (n, o, b, c, space...).

    The gradients of all samples and groups are those of one convolution with n g groups of o j
    output channels, on a batch of b images.
    """
    weight, inputs, groups = arguments["weight"], arguments["input"], arguments.get("groups", 1)
    samples, outputs = cotangents.shape[:2]
    kernel_size = weight.shape[2:]
    stride, dilation = (
        repeat_number(arguments.get(name, 1), len(kernel_size)) for name in ("stride", "dilation")
    )
    padded = _pad(
        inputs.transpose(0, 1).flatten(1, 2), arguments.get("padding", 0), kernel_size, dilation
    )
    # (n, o, b, (g j), space...) -> (b, n, g, o, j, space...) -> (b, (n g o j), space...)
    moved = cotangents.unflatten(3, (groups, -1)).movedim((2, 0, 3), (0, 1, 2)).flatten(1, 4)
    size = (moved.shape[1], *weight.shape[1:])
    write = _WEIGHT_GRADIENTS[len(kernel_size)]
    gradients = write(padded, size, moved, stride, 0, dilation, samples * groups)
    gradients = gradients.view(samples, groups, outputs, -1).transpose(1, 2).flatten(2)
    return DenseBlock(layout_of(arguments, ["weight"]), gradients)


def _make_weight_block(
    arguments: Mapping[str, Any], cotangents: Tensor, names: Sequence[str]
) -> Block:
    """Return the block of the weight, or of both parameters, from cotangents (n, o, t, c)."""
    weight, groups = arguments["weight"], arguments.get("groups", 1)
    cotangents = cotangents.unflatten(-1, (groups, -1))
    kernel = math.prod(weight.shape[2:])
    # Stored as (g, j, k, c); the parameter is (g j, c, k).
    order = Order((groups, cotangents.shape[-1], kernel, weight.shape[1]), (0, 1, 3, 2))
    activations = _make_activations(arguments)
    return make_factor_block(arguments, activations, cotangents, names, order)


def _make_activations(arguments: Mapping[str, Any]) -> Tensor:
    """Return the windows a of the padded input, of shape (n, t, g, i)."""
    weight, inputs = arguments["weight"], arguments["input"]
    kernel_size = weight.shape[2:]
    dimensions, groups = len(kernel_size), arguments.get("groups", 1)
    stride, dilation = (
        repeat_number(arguments.get(name, 1), dimensions) for name in ("stride", "dilation")
    )
    images = inputs.flatten(0, 1)
    padded = _pad(images, arguments.get("padding", 0), kernel_size, dilation)
    # Same shape as before, with the channels last in memory.
    padded = padded.movedim(1, -1).contiguous().movedim(-1, 1)
    windows = extract_windows(padded, kernel_size, stride, dilation)
    # (n b, t, k (g c)) -> (n b, t, k, g, c) -> (n b, t, g, (k c)) -> (n, b t, g, (k c))
    columns = _flatten_windows(windows.movedim(1, -1), dimensions).unflatten(
        2, (-1, groups, weight.shape[1])
    )
    return columns.movedim(3, 2).flatten(3).unflatten(0, inputs.shape[:2]).flatten(1, 2)


def _flatten_windows(windows: Tensor, dimensions: int) -> Tensor:
    """Return (n, t, kernel x channels) from (n, positions..., kernel..., channels).

    The elements are copied in contiguous runs, along the last kernel axis and the channels or along
    the last axis of the positions, whichever is longer.
    """
    run, line = math.prod(windows.shape[-2:]), windows.shape[dimensions]
    if run >= line:
        return windows.flatten(1, dimensions).flatten(2)
    transposed = windows.movedim(tuple(range(1, 1 + dimensions)), tuple(range(-dimensions, 0)))
    return transposed.flatten(-dimensions).flatten(1, -2).mT


def _pad(
    images: Tensor, padding: Any, kernel_size: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return images padded with zeros as a convolution pads them."""
    # functional.pad expects the last axis first.
    pairs = reversed(_padding_widths(padding, kernel_size, dilation))
    widths = [width for pair in pairs for width in pair]
    return functional.pad(images, widths) if any(widths) else images


def _padding_widths(
    padding: Any, kernel_size: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the padding before and after the images along each axis."""
    if padding == "valid":
        return [(0, 0)] * len(kernel_size)
    if padding == "same":
        totals = [gap * (size - 1) for size, gap in zip(kernel_size, dilation, strict=True)]
        # torch puts the larger half of an odd total at the end.
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(width), int(width)) for width in repeat_number(padding, len(kernel_size))]
