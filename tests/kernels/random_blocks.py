"""Blocks of each kind with random factors, and the arguments of their methods."""

import pytest
import torch

from sknetsim._kernels.blocks import DenseBlock, add_blocks, concatenate_blocks
from sknetsim._kernels.embedding_blocks import EmbeddingBlock
from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim._kernels.layouts import PLAIN_ORDER, FourierMap, Order

OUTPUTS, GROUPS, OUT, KERNEL, CHANNELS = 3, 2, 4, 2, 3
WIDTH = KERNEL * CHANNELS
VOCABULARY = 7
WINDOWS = Order((GROUPS, OUT, KERNEL, CHANNELS), (0, 1, 3, 2))
TRANSPOSED = Order((GROUPS, OUT, WIDTH), (0, 2, 1))
#: Shape of the weight in the layout; its first axis contains the groups too.
SHAPES = {
    PLAIN_ORDER: (GROUPS * OUT, WIDTH),
    WINDOWS: (GROUPS * OUT, CHANNELS, KERNEL),
    TRANSPOSED: (GROUPS * WIDTH, OUT),
}


def make_factor_block(samples, positions, bias=False, order=PLAIN_ORDER):
    layout = (("weight", torch.Size(SHAPES[order])),)
    layout += (("bias", torch.Size([GROUPS * OUT])),) * bias
    activations = torch.randn(samples, positions, GROUPS, WIDTH, dtype=torch.float64)
    return FactorBlock(layout, _draw_cotangents(samples, positions, GROUPS), activations, order)


def _draw_cotangents(samples, positions, groups):
    return torch.randn(samples, OUTPUTS, positions, groups, OUT, dtype=torch.float64)


def make_embedding_block(samples, positions):
    layout = (("weight", torch.Size([VOCABULARY, OUT])),)
    indices = torch.randint(0, VOCABULARY, (samples, positions))
    return EmbeddingBlock(layout, _draw_cotangents(samples, positions, 1), indices)


def make_dense_block(samples, *shapes):
    layout = tuple((str(index), torch.Size(shape)) for index, shape in enumerate(shapes))
    width = sum(shape.numel() for _, shape in layout)
    return DenseBlock(layout, torch.randn(samples, OUTPUTS, width, dtype=torch.float64))


KINDS = {
    "factors": lambda samples: make_factor_block(samples, 1),
    "factors with bias": lambda samples: make_factor_block(samples, 1, bias=True),
    "factors at positions": lambda samples: make_factor_block(samples, 3, bias=True),
    "factors of windows": lambda samples: make_factor_block(samples, 3, order=WINDOWS),
    "transposed factors": lambda samples: make_factor_block(samples, 3, order=TRANSPOSED),
    "factors written out": lambda samples: make_factor_block(
        samples, 3, order=TRANSPOSED
    ).written(),
    "embedding": lambda samples: make_embedding_block(samples, 5),
    "embedding of one token": lambda samples: make_embedding_block(samples, 1),
    "dense": lambda samples: make_dense_block(samples, [2, 3]),
    "dense of several parameters": lambda samples: make_dense_block(samples, [3, 2, 2], [3], []),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def make_fourier_map(shape, frequencies=7):
    """Return a map of a parameter with any complex numbers, of which phases are a special case."""
    sizes = OUTPUTS, shape[0] if shape else 1, shape[1:].numel()
    return FourierMap(*(torch.randn(size, frequencies, dtype=torch.complex128) for size in sizes))


def draw(make):
    """Return a block of 4 samples, one of 5, and arguments for the methods of the first.

    The arguments are a root, weights, vectors and maps.
    """
    torch.manual_seed(0)
    block, other = make(4), make(5)
    width = sum(shape.numel() for _, shape in block.layout)
    root = torch.randn(4, OUTPUTS, OUTPUTS, dtype=torch.float64)
    weights = torch.randn(4, OUTPUTS, 2, dtype=torch.float64)
    vectors = torch.randn(OUTPUTS, width, dtype=torch.float64)
    maps = [make_fourier_map(shape) for _, shape in block.layout]
    return block, other, root, weights, vectors, maps


def split_by_layout(vectors, layout):
    return vectors.split([shape.numel() for _, shape in layout], dim=1)


#: Each quantity of a block, from what `draw` returns.
QUANTITIES = {
    "gram": lambda block, other, *_: block.gram(other),
    "trace_gram": lambda block, other, *_: block.trace_gram(other),
    "paired": lambda block, other, *_: block.paired(other.rows(slice(0, 4))),
    "marginals by rows": lambda block, other, *_: torch.cat(
        block.marginals(other.rows(slice(0, 4)), [len(shape) > 1 for _, shape in block.layout]),
        dim=1,
    ),
    "marginals by columns": lambda block, other, *_: torch.cat(
        block.marginals(other.rows(slice(0, 4)), [False] * len(block.layout)), dim=1
    ),
    "sketch": lambda block, other, root, weights, vectors, maps: block.sketch(maps),
    "self_kernel": lambda block, *_: block.self_kernel(),
    "whiten": lambda block, other, root, *_: block.whiten(root).materialize(),
    "weighted_sum": lambda block, other, root, weights, *_: torch.cat(
        block.weighted_sum(weights), dim=1
    ),
    "inner": lambda block, other, root, weights, vectors, maps: block.inner(
        split_by_layout(vectors, block.layout)
    ),
    "product": lambda block, other, root, weights, vectors, maps: block.product(
        split_by_layout(vectors[:2], block.layout)
    ),
    "concatenate_blocks": lambda block, other, *_: concatenate_blocks([block, other]).materialize(),
    "add_blocks": lambda block, *_: add_blocks([block, block]).materialize(),
    "for_sums": lambda block, *_: block.for_sums().materialize(),
    "for_pairs": lambda block, *_: block.for_pairs().materialize(),
    "rows": lambda block, *_: block.rows(slice(1, 3)).materialize(),
}
