"""What the linear-like rules share: from activations and cotangents at positions to a block.

Index legend: n samples; o outputs; t positions; g groups; j out, i in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .._kernels.blocks import Block, DenseBlock
from .._kernels.factored_blocks import FactorBlock
from ._registry import layout_of


def factor_block(
    module: nn.Module, activations: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """A block from activations (n, t, g, i) and cotangents (n, o, t, g, j)."""
    layout = layout_of(module, names)
    if "weight" not in names:
        return [DenseBlock(layout, cotangents.sum(dim=2).flatten(2))]
    return [FactorBlock(layout, cotangents, activations)]


def windows(
    images: Tensor, kernel_size: Iterable[int], stride: Iterable[int], dilation: Iterable[int]
) -> Tensor:
    """Windows (..., c, positions..., kernel...) of padded images (..., c, space...)."""
    kernel_size = tuple(kernel_size)
    first = images.ndim - len(kernel_size)
    axes = zip(kernel_size, stride, dilation, strict=True)
    for axis, (size, step, gap) in enumerate(axes, start=first):
        images = images.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    return images


def crop(images: Tensor, sizes: Sequence[int]) -> Tensor:
    """The leading part of the last axes."""
    for axis, size in enumerate(sizes, start=images.ndim - len(sizes)):
        images = images.narrow(axis, 0, size)
    return images


def positions_last(images: Tensor, dimensions: int) -> Tensor:
    """(..., c, space...) -> (..., t, c)."""
    return torch.movedim(images.flatten(-dimensions), -1, -2)
