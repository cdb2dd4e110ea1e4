"""Rule of functions that repeat a parameter for each sample or position.

Index legend: n samples; o outputs of the network; k repetitions along an axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._kernels.blocks import Block, DenseBlock
from ._registry import layout_of, register_rule


@register_rule(
    Tensor.expand,
    Tensor.expand_as,
    Tensor.broadcast_to,
    torch.broadcast_to,
    Tensor.repeat,
    Tensor.tile,
    torch.tile,
    parameters=["input"],
    arguments=["input"],
)
def expansion(
    arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the cotangents summed over all repetitions of each element."""
    shape = arguments["input"].shape
    gradients = cotangents
    new_axes = gradients.ndim - 2 - len(shape)
    if new_axes > 0:
        gradients = gradients.flatten(2, 1 + new_axes).sum(dim=2)
    for axis, size in enumerate(shape, start=2):
        if gradients.shape[axis] != size:
            # k repetitions of all entries, one after another
            gradients = gradients.unflatten(axis, (-1, size)).sum(dim=axis)
    return [DenseBlock(layout_of(arguments, names), gradients.reshape(*cotangents.shape[:2], -1))]
