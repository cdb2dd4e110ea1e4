"""Parts that linear layers and convolutions share: blocks from factors, windows, positions.

Index legend: n samples; o outputs of the network; t positions; g groups; j output and i input
channels of a group; c channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._kernels.blocks import Block, DenseBlock
from .._kernels.factored_blocks import FactorBlock
from .._kernels.layouts import PLAIN_ORDER, Order
from ._registry import layout_of


def make_factor_block(
    arguments: Mapping[str, Any],
    activations: Tensor,
    cotangents: Tensor,
    names: Sequence[str],
    order: Order = PLAIN_ORDER,
) -> Block:
    """Return a block from activations a (n, t, g, i) and cotangents e (n, o, t, g, j).

    The gradient of the first name, the weight, is sum_t e[n,o,t,g,j] a[n,t,g,i]. The gradient of a
    second name, the bias, is sum_t e[n,o,t,g,j].
    """
    return FactorBlock(layout_of(arguments, names), cotangents, activations, order)


def make_bias_block(arguments: Mapping[str, Any], name: str, cotangents: Tensor) -> DenseBlock:
    """Return sum_t e[n,o,t,c], from cotangents e of shape (n, o, t, c)."""
    return DenseBlock(layout_of(arguments, [name]), cotangents.sum(dim=2))


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
    """Return (..., t, c) from (..., b, c, space...), where the space has ``dimensions`` axes.

    The positions are those of all b images of a sample.
    """
    # (..., b, c, space...) -> (..., b, t, c) -> (..., b t, c)
    return torch.movedim(images.flatten(-dimensions), -1, -2).flatten(-3, -2)


def repeat_number(value: Any, dimensions: int) -> tuple[int, ...]:
    """Return one number for each dimension, from one number or a sequence of 1 or all numbers."""
    numbers = tuple(value) if isinstance(value, tuple | list) else (value,)
    return numbers * dimensions if len(numbers) == 1 else numbers
