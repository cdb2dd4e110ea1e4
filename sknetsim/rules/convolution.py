"""Rule of convolutions in one, two and three dimensions.

Index legend: n samples; o outputs; t positions of the output; g groups; j out channels of a
group, i input channels of a group times kernel positions.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from .._blocks import Block
from ._factors import factor_block, positions_last, windows
from ._registry import register_rule


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(
    module: _ConvNd, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """A linear layer over the windows of the padded input."""
    dimensions, groups = len(module.kernel_size), module.groups
    patches = windows(_pad(module, inputs), module.kernel_size, module.stride, module.dilation)
    patches = patches.unflatten(1, (groups, -1)).movedim(1, -1).movedim(1, -1 - dimensions - 1)
    activations = patches.flatten(1, dimensions).movedim(-1, 2).flatten(3)
    cotangents = positions_last(cotangents, dimensions).unflatten(-1, (groups, -1))
    return factor_block(module, activations, cotangents, names)


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
