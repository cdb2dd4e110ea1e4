"""Rule of transposed convolutions: a convolution with the roles of input and output exchanged.

Index legend: n samples; o outputs; t positions of the input; g groups; j output channels of a
group times kernel positions, i input channels of a group.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvTransposeNd

from .._kernels.blocks import Block, DenseBlock
from .._kernels.factored_blocks import FactorBlock
from .._kernels.layouts import Order
from ._factors import crop, positions_last, windows
from ._registry import layout_of, register_rule


@register_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(
    module: _ConvTransposeNd, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Weight from the windows of the cotangents; bias their sum over positions."""
    rules = {"weight": _weight, "bias": _bias}
    return [rules[name](module, inputs, cotangents) for name in names]


def _bias(module: _ConvTransposeNd, inputs: Tensor, cotangents: Tensor) -> Block:
    return DenseBlock(layout_of(module, ["bias"]), cotangents.flatten(3).sum(dim=-1))


def _weight(module: _ConvTransposeNd, inputs: Tensor, cotangents: Tensor) -> Block:
    activations = positions_last(inputs, len(module.kernel_size)).unflatten(-1, (module.groups, -1))
    patches = _patches(module, cotangents, inputs.shape[2:])
    order = Order((module.groups, patches.shape[-1], activations.shape[-1]), (0, 2, 1))
    return FactorBlock(layout_of(module, ["weight"]), patches, activations, order)


def _patches(module: _ConvTransposeNd, cotangents: Tensor, space: tuple[int, ...]) -> Tensor:
    """Windows (n, o, t, g, j) of the cotangents, one per position of the input."""
    dimensions = len(space)
    widths = [width for size in reversed(tuple(map(int, module.padding))) for width in (size, size)]
    padded = functional.pad(cotangents.flatten(0, 1), widths)
    patches = windows(padded, module.kernel_size, module.stride, module.dilation)
    patches = patches.movedim(tuple(range(2, 2 + dimensions)), tuple(range(-dimensions, 0)))
    patches = crop(patches, space).flatten(-dimensions).movedim(-1, 1)
    patches = patches.unflatten(2, (module.groups, -1)).flatten(3)
    return patches.unflatten(0, cotangents.shape[:2])
