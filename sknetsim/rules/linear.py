"""Rule of the linear layer, at one or several positions (tokens, time steps).

Index legend: n samples; o outputs of the network; t positions; j output and i input channels. The
layer computes y[n,t,j] = sum_i W[j,i] a[n,t,i] + b[j].
"""

from __future__ import annotations

from torch import Tensor, nn

from .._kernels.blocks import Block
from ._factors import make_factor_block
from ._registry import register_rule


@register_rule(nn.Linear)
def linear(
    module: nn.Linear, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return dW[j,i] = sum_t e[n,o,t,j] a[n,t,i] and db[j] = sum_t e[n,o,t,j], as factors."""
    samples, outputs = cotangents.shape[:2]
    activations = inputs.reshape(samples, -1, 1, inputs.shape[-1])
    cotangents = cotangents.reshape(samples, outputs, -1, 1, cotangents.shape[-1])
    return make_factor_block(module, activations, cotangents, names)
