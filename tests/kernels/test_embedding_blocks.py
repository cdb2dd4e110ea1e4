"""Blocks of embeddings, against loops over their tokens."""

import torch

from sknetsim._kernels.blocks import DenseBlock

from .random_blocks import OUT, VOCABULARY, make_embedding_block


def loop_table_gradients(block):
    """Add each token's cotangent to its row, of shape (n, o, v, j)."""
    samples, outputs, positions = block.cotangents.shape[:3]
    gradients = torch.zeros(samples, outputs, VOCABULARY, OUT, dtype=torch.float64)
    for n in range(samples):
        for t in range(positions):
            gradients[n, :, block.indices[n, t]] += block.cotangents[n, :, t, 0]
    return gradients


def test_each_row_of_the_table_collects_the_cotangents_of_its_tokens():
    block = make_embedding_block(3, 5)
    torch.testing.assert_close(block.materialize(), loop_table_gradients(block).flatten(2))


def test_a_repeated_token_adds_up():
    block = make_embedding_block(3, 5)
    block.indices.fill_(2)
    gradients = block.materialize().unflatten(2, (VOCABULARY, OUT))
    torch.testing.assert_close(gradients[:, :, 2], block.cotangents.sum(dim=2)[:, :, 0])
    assert not gradients[:, :, [0, 1, 3, 4, 5, 6]].any()


def test_samples_without_a_common_token_have_kernel_zero():
    block, other = make_embedding_block(3, 5), make_embedding_block(2, 4)
    block.indices.fill_(1)
    other.indices.fill_(2)
    assert not block.gram(other).any()
    assert not block.trace_gram(other).any()


def test_a_large_table_is_not_written_out():
    block = make_embedding_block(3, 2)
    large = type(block)((("weight", torch.Size([5000, OUT])),), block.cotangents, block.indices)
    assert large.for_sums() is large
    assert large.for_pairs() is large


def test_a_small_table_of_a_long_text_is_written_out():
    assert isinstance(make_embedding_block(3, 100).for_pairs(), DenseBlock)
