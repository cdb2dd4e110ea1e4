"""Rule of the embedding: one-hot activations, never written out.

Index legend: n samples; o outputs; t positions (tokens); j width of the embedding.
"""

from __future__ import annotations

from torch import Tensor, nn

from .._kernels.blocks import Block
from .._kernels.embedding_blocks import EmbeddingBlock
from ._registry import layout_of, register_rule


@register_rule(nn.Embedding, parameters=["weight"])
def embedding(
    module: nn.Embedding, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """The row of each index collects the cotangent at its position."""
    samples, outputs = cotangents.shape[:2]
    indices = inputs.reshape(samples, -1).long()
    cotangents = cotangents.reshape(samples, outputs, -1, 1, cotangents.shape[-1])
    if module.padding_idx is not None:
        kept = indices != module.padding_idx
        cotangents = cotangents * kept[:, None, :, None, None]
    return [EmbeddingBlock(layout_of(module, names), cotangents, indices)]
