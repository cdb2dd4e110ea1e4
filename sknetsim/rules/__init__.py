"""Rules: the per-sample gradients of each type of layer, one file per family."""

from __future__ import annotations

from .._kernels.blocks import Block, DenseBlock
from .._kernels.factored_blocks import FactorBlock

# Importing the file of a family registers its rules.
from . import convolution, embedding, linear, normalization, transposed_convolution

# The engine imports find_rule from here; it is not part of the public interface.
from ._registry import find_rule as find_rule
from ._registry import layout_of, register_rule

__all__ = ["Block", "DenseBlock", "FactorBlock", "layout_of", "register_rule"]
