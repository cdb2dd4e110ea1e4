"""Rule of the embedding, with one-hot activations that are stored as row numbers.

Index legend: n samples; o outputs of the network; t positions (tokens); v rows of the table;
j width of the embedding. The layer computes y[n,t,j] = W[index[n,t],j].
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
    """Return dW[v,j], the sum of e[n,o,t,j] over the positions with index[n,t] = v, as factors."""
    samples, outputs = cotangents.shape[:2]
    indices = inputs.reshape(samples, -1).long()
    cotangents = cotangents.reshape(samples, outputs, -1, 1, cotangents.shape[-1])
    if module.padding_idx is not None:
        # torch gives the padding row a zero gradient.
        used = indices != module.padding_idx
        cotangents = cotangents * used[:, None, :, None, None]
    return [EmbeddingBlock(layout_of(module, names), cotangents, indices)]
