"""Rule of the linear layer, at one position or at several (tokens, time steps).

Index legend: n samples; o outputs; t positions; j out, i in.
"""

from __future__ import annotations

from torch import Tensor, nn

from .._kernels.blocks import Block
from ._factors import factor_block
from ._registry import register_rule


@register_rule(nn.Linear)
def linear(
    module: nn.Linear, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Weight e_j a_i summed over positions, bias e_j."""
    samples, outputs = cotangents.shape[:2]
    activations = inputs.reshape(samples, -1, 1, inputs.shape[-1])
    cotangents = cotangents.reshape(samples, outputs, -1, 1, cotangents.shape[-1])
    return factor_block(module, activations, cotangents, names)
