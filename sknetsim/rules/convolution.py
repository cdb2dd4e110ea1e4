"""Rule of convolutions in one, two and three dimensions.

Index legend: n samples; o outputs; t positions of the output; g groups; k positions of the kernel,
c input channels of a group; j out channels of a group, i = (k, c), so that neighbouring windows
are copied in long runs.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from .._kernels.blocks import Block, DenseBlock
from .._kernels.factored_blocks import FactorBlock
from .._kernels.layouts import Order
from ._factors import positions_last, windows
from ._registry import layout_of, register_rule


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(
    module: _ConvNd, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Weight from the windows of the padded input; bias the cotangents summed over positions."""
    rules = {"weight": _weight, "bias": _bias}
    return [rules[name](module, inputs, cotangents) for name in names]


def _bias(module: _ConvNd, inputs: Tensor, cotangents: Tensor) -> Block:
    return DenseBlock(layout_of(module, ["bias"]), cotangents.flatten(3).sum(dim=-1))


def _weight(module: _ConvNd, inputs: Tensor, cotangents: Tensor) -> Block:
    cotangents = positions_last(cotangents, len(module.kernel_size))
    cotangents = cotangents.unflatten(-1, (module.groups, -1))
    kernel = math.prod(module.kernel_size)
    channels = module.in_channels // module.groups
    order = Order((module.groups, cotangents.shape[-1], kernel, channels), (0, 1, 3, 2))
    layout = layout_of(module, ["weight"])
    return FactorBlock(layout, cotangents, _activations(module, inputs), order)


def _activations(module: _ConvNd, inputs: Tensor) -> Tensor:
    """Windows of shape (n, t, g, i)."""
    dimensions = len(module.kernel_size)
    images = _pad(module, inputs).movedim(1, -1).contiguous().movedim(-1, 1)
    patches = windows(images, module.kernel_size, module.stride, module.dilation).movedim(1, -1)
    columns = _matrix(patches, dimensions).unflatten(
        2, (-1, module.groups, inputs.shape[1] // module.groups)
    )
    return columns.movedim(3, 2).flatten(3)


def _matrix(patches: Tensor, dimensions: int) -> Tensor:
    """(n, positions..., kernel..., c) -> (n, t, kernel x c), copied in runs as long as can be."""
    run, line = math.prod(patches.shape[-2:]), patches.shape[dimensions]
    if run >= line:
        return patches.flatten(1, dimensions).flatten(2)
    across = patches.movedim(tuple(range(1, 1 + dimensions)), tuple(range(-dimensions, 0)))
    return across.flatten(-dimensions).flatten(1, -2).mT


def _pad(module: _ConvNd, inputs: Tensor) -> Tensor:
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    widths = [width for pair in reversed(_padding(module)) for width in pair]
    return functional.pad(inputs, widths, mode=mode) if any(widths) else inputs


def _padding(module: _ConvNd) -> list[tuple[int, int]]:
    """Zeros before and after each axis."""
    if module.padding == "valid":
        return [(0, 0)] * len(module.kernel_size)
    if module.padding == "same":
        spans = zip(module.kernel_size, module.dilation, strict=True)
        totals = [gap * (size - 1) for size, gap in spans]
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(width), int(width)) for width in module.padding]
