"""The rule of the embedding."""

import torch
from torch import nn

from sknetsim._kernels.embedding_blocks import EmbeddingBlock

from .loops import apply_rule, draw_cotangents


def apply_to_embedding(tokens, **options):
    layer = nn.Embedding(6, 4, **options).double()
    blocks, gradients = apply_rule(layer, tokens, draw_cotangents(layer, tokens), ["weight"])
    return blocks[0], gradients["weight"].unflatten(2, (6, 4))


def test_tokens_stay_row_numbers():
    tokens = torch.tensor([[0, 5, 5], [1, 2, 3]], dtype=torch.int32)
    block, _ = apply_to_embedding(tokens)
    assert isinstance(block, EmbeddingBlock)
    assert torch.equal(block.indices, tokens.long())


def test_rows_of_missing_tokens_have_zero_gradients():
    _, gradients = apply_to_embedding(torch.tensor([[0, 5, 5], [1, 2, 3]]))
    assert not gradients[0, :, [1, 2, 3, 4]].any()
    assert gradients[0, :, [0, 5]].all()


def test_the_padding_row_has_a_zero_gradient():
    _, gradients = apply_to_embedding(torch.tensor([[0, 5, 5], [1, 2, 3]]), padding_idx=5)
    assert not gradients[:, :, 5].any()
    assert gradients[0, :, 0].all()


def test_tokens_may_have_several_axes():
    block, _ = apply_to_embedding(torch.randint(0, 6, (2, 3, 4)))
    assert block.indices.shape == (2, 12)


def test_a_sample_may_be_a_single_token():
    block, _ = apply_to_embedding(torch.tensor([4, 1, 4]))
    assert block.indices.shape == (3, 1)
