"""Features whose inner products are subtracted, against negated dense blocks."""

import pytest
import torch

from sknetsim._curvature.subtracted_block import SubtractedBlock
from sknetsim._kernels.blocks import DenseBlock
from sknetsim._kernels.jacobian import Jacobian, concatenate_jacobians

LAYOUT = (("w", torch.Size([4])), ("ridge", torch.Size([3])))


def draw(samples, seed):
    """Return a Jacobian with subtracted features, and both parts of it written out."""
    generator = torch.Generator().manual_seed(seed)
    gradients, features = (
        torch.randn(samples, 2, size, generator=generator, dtype=torch.float64) for size in (4, 3)
    )
    blocks = {
        ("w",): DenseBlock(LAYOUT[:1], gradients),
        ("ridge",): SubtractedBlock(LAYOUT[1:], features),
    }
    return Jacobian(blocks, LAYOUT, gradients[:, :, 0]), gradients, features


def multiply(equation, first, second):
    """Return <G, G'> - <F, F'> by an einsum over gradients and features."""
    return torch.einsum(equation, first[1], second[1]) - torch.einsum(equation, first[2], second[2])


METHODS = {
    "gram": ("now,mpw->nmop", lambda own, other: own.gram(other)),
    "trace gram": ("now,mow->nm", lambda own, other: own.trace_gram(other)),
    "concatenated": (
        "now,mow->nm",
        lambda own, other: concatenate_jacobians([own.rows([0]), own.rows([1, 2])]).trace_gram(
            other
        ),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_products_of_features_are_subtracted(name):
    own, other = draw(3, 0), draw(5, 1)
    equation, compute = METHODS[name]
    torch.testing.assert_close(compute(own[0], other[0]), multiply(equation, own, other))


def test_the_self_kernel_subtracts_products_of_features():
    own = draw(3, 0)
    torch.testing.assert_close(own[0].self_kernel(), multiply("now,npw->nop", own, own))


def test_products_with_sums_are_sums_of_products():
    own, other = draw(3, 0), draw(5, 1)
    weights = torch.randn(5, 2, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    total = other[0].weighted_sum(weights)
    expected = torch.einsum("nmop,mpq->noq", multiply("now,mpw->nmop", own, other), weights)
    torch.testing.assert_close(own[0].product(total), expected)


def test_whitened_features_are_subtracted():
    own = draw(3, 0)
    root = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kernel = multiply("now,npw->nop", own, own)
    torch.testing.assert_close(own[0].whiten(root).self_kernel(), root @ kernel @ root.mT)


def test_subtracted_features_are_not_written_out():
    with pytest.raises(NotImplementedError, match="cannot be written out"):
        draw(2, 0)[0].materialize()
