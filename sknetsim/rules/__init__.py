"""Rules: the per-sample gradients of each type of layer, one file per family."""

from __future__ import annotations

from .._kernels.blocks import Block, DenseBlock
from .._kernels.factored_blocks import FactorBlock
from . import convolution, embedding, linear, normalization, transposed_convolution
from ._registry import find_rule, layout_of, register_rule

__all__ = [
    "Block",
    "DenseBlock",
    "FactorBlock",
    "convolution",
    "embedding",
    "find_rule",
    "layout_of",
    "linear",
    "normalization",
    "register_rule",
    "transposed_convolution",
]
