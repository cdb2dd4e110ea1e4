"""Parts that linear layers and convolutions share: blocks from factors, windows, positions.

Index legend: n samples; o outputs of the network; t positions; g groups; j output and i input
channels of a group; c channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .._kernels.blocks import Block, DenseBlock
from .._kernels.factored_blocks import FactorBlock
from ._registry import layout_of


def make_factor_block(
    module: nn.Module, activations: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return a block from activations a (n, t, g, i) and cotangents e (n, o, t, g, j).

    The gradient of the weight is sum_t e[n,o,t,g,j] a[n,t,g,i], that of the bias
    sum_t e[n,o,t,g,j]. The bias on its own needs no activations.
    """
    layout = layout_of(module, names)
    if "weight" not in names:
        return [DenseBlock(layout, cotangents.sum(dim=2).flatten(2))]
    return [FactorBlock(layout, cotangents, activations)]


def make_bias_block(module: nn.Module, cotangents: Tensor) -> DenseBlock:
    """Return sum_t e[n,o,c,t], from cotangents e of shape (n, o, c, space...)."""
    return DenseBlock(layout_of(module, ["bias"]), cotangents.flatten(3).sum(dim=-1))


def extract_windows(
    images: Tensor, kernel_size: Iterable[int], stride: Iterable[int], dilation: Iterable[int]
) -> Tensor:
    """Return a view of the windows of padded images.

    Images of shape (..., c, space...) give windows of shape (..., c, positions..., kernel...).
    """
    kernel_size = tuple(kernel_size)
    first = images.ndim - len(kernel_size)
    axes = zip(kernel_size, stride, dilation, strict=True)
    for axis, (size, step, gap) in enumerate(axes, start=first):
        images = images.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    return images


def crop(images: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the first ``sizes`` entries along the last axes, one size for each axis."""
    for axis, size in enumerate(sizes, start=images.ndim - len(sizes)):
        images = images.narrow(axis, 0, size)
    return images


def move_positions_first(images: Tensor, dimensions: int) -> Tensor:
    """Return (..., t, c) from (..., c, space...), where the space has ``dimensions`` axes."""
    return torch.movedim(images.flatten(-dimensions), -1, -2)
