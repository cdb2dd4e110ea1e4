"""Rule of convolutions in one, two and three dimensions.

Index legend: n samples; o outputs of the network; t positions of the layer's output; g groups;
k positions in the kernel; c input and j output channels of a group. A convolution is a linear layer
on windows: y[n,t,g,j] = sum_i W[g,j,i] a[n,t,g,i] + b[g,j], where a[n,t,g,i] is the window of the
padded input at t and i = (k, c). The channels c come last in i, so that neighbouring windows are
copied in long runs.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from .._kernels.blocks import Block
from .._kernels.factored_blocks import FactorBlock
from .._kernels.layouts import Order
from ._factors import extract_windows, make_bias_block, move_positions_first
from ._registry import layout_of, register_rule


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(
    module: _ConvNd, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return dW[g,j,i] = sum_t e[n,o,t,g,j] a[n,t,g,i] as factors, and db[g,j] = sum_t e."""
    make_block = {
        "weight": lambda: _make_weight_block(module, inputs, cotangents),
        "bias": lambda: make_bias_block(module, cotangents),
    }
    return [make_block[name]() for name in names]


def _make_weight_block(module: _ConvNd, inputs: Tensor, cotangents: Tensor) -> Block:
    # (n, o, channels, space...) -> (n, o, t, g, j)
    cotangents = move_positions_first(cotangents, len(module.kernel_size))
    cotangents = cotangents.unflatten(-1, (module.groups, -1))
    kernel = math.prod(module.kernel_size)
    channels = module.in_channels // module.groups
    # Stored as (g, j, k, c); the parameter is (g j, c, k).
    order = Order((module.groups, cotangents.shape[-1], kernel, channels), (0, 1, 3, 2))
    layout = layout_of(module, ["weight"])
    return FactorBlock(layout, cotangents, _make_activations(module, inputs), order)


def _make_activations(module: _ConvNd, inputs: Tensor) -> Tensor:
    """Return the windows a of the padded input, of shape (n, t, g, i)."""
    dimensions = len(module.kernel_size)
    # Same shape as before, with the channels last in memory.
    images = _pad(module, inputs).movedim(1, -1).contiguous().movedim(-1, 1)
    windows = extract_windows(images, module.kernel_size, module.stride, module.dilation)
    # (n, t, k (g c)) -> (n, t, k, g, c) -> (n, t, g, (k c))
    columns = _flatten_windows(windows.movedim(1, -1), dimensions).unflatten(
        2, (-1, module.groups, inputs.shape[1] // module.groups)
    )
    return columns.movedim(3, 2).flatten(3)


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


def _pad(module: _ConvNd, inputs: Tensor) -> Tensor:
    """Return the inputs padded as the module pads them."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    # functional.pad expects the last axis first.
    widths = [width for pair in reversed(_padding_widths(module)) for width in pair]
    return functional.pad(inputs, widths, mode=mode) if any(widths) else inputs


def _padding_widths(module: _ConvNd) -> list[tuple[int, int]]:
    """Return the padding before and after the images along each axis."""
    if module.padding == "valid":
        return [(0, 0)] * len(module.kernel_size)
    if module.padding == "same":
        spans = zip(module.kernel_size, module.dilation, strict=True)
        totals = [gap * (size - 1) for size, gap in spans]
        # torch puts the larger half of an odd total at the end.
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(width), int(width)) for width in module.padding]
