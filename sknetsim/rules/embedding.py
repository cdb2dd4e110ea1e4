"""Rule of the embedding, with one-hot activations that are stored as row numbers.

Index legend: n samples; o outputs of the network; t positions (tokens); v rows of the table;
j width of the embedding. The layer computes y[n,t,j] = W[index[n,t],j].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._kernels.blocks import Block
from .._kernels.embedding_blocks import EmbeddingBlock
from ._registry import layout_of, register_rule


@register_rule(
    torch.embedding,
    parameters=["weight"],
    arguments=("weight", "indices", "padding_idx", "scale_grad_by_freq", "sparse"),
)
def embedding(
    arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return dW[v,j], the sum of e[n,o,t,j] over the positions with index[n,t] = v, as factors."""
    samples, outputs = cotangents.shape[:2]
    indices = arguments["indices"].reshape(samples, -1).long()
    cotangents = cotangents.reshape(samples, outputs, -1, 1, cotangents.shape[-1])
    padding = arguments.get("padding_idx", -1)
    if padding >= 0:
        # torch gives the padding row a zero gradient.
        used = indices != padding
        cotangents = cotangents * used[:, None, :, None, None]
    return [EmbeddingBlock(layout_of(arguments, names), cotangents, indices)]
