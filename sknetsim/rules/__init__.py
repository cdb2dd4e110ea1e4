"""Rules: the per-sample gradients of each function with parameters, one file per family."""

from __future__ import annotations

from .._kernels.blocks import Block, DenseBlock
from .._kernels.factored_blocks import FactorBlock

# Importing the file of a family registers its rules.
from . import (
    convolution,
    decompositions,
    embedding,
    expansion,
    linear,
    normalization,
    recurrent,
    transposed_convolution,
)

# The engine imports these from here; they are not part of the public interface.
from ._registry import Entry as Entry
from ._registry import find_decomposition as find_decomposition
from ._registry import find_function_rule as find_function_rule
from ._registry import find_recurrence as find_recurrence
from ._registry import find_rule as find_rule
from ._registry import has_rule as has_rule
from ._registry import layout_of, register_rule

__all__ = ["Block", "DenseBlock", "FactorBlock", "layout_of", "register_rule"]
