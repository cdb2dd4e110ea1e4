"""Inverse roots, whitenings and reductions of kernels against their definitions."""

import numpy as np
import pytest
import torch

from sknetsim._kernels.whitening import (
    METRICS,
    WHITENINGS,
    identity_root,
    influence_kernel,
    inverse_root,
    rank_cutoff,
    reduce_kernel,
    rounding_level,
)

from .. import naive

EPS = torch.finfo(torch.float64).eps


def random_matrices(seed, count, size):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=(count, size, size)))


@pytest.mark.parametrize(("size", "rank"), [(1, 1), (3, 3), (4, 2), (3, 0)])
def test_inverse_root_is_the_pseudo_inverse_root(size, rank):
    factors = random_matrices(0, 5, size)[:, :, :rank]
    kernels = factors @ factors.mT
    root, ranks, _ = inverse_root(kernels, torch.float64)
    assert ranks.tolist() == [rank] * 5
    expected = np.linalg.pinv(kernels.numpy(), rcond=1e-10)
    np.testing.assert_allclose(root @ root, expected, atol=1e-8)


def test_inverse_root_is_that_of_the_naive_eigendecomposition():
    kernel = random_matrices(4, 1, 3)
    kernel = kernel @ kernel.mT
    root, *_ = inverse_root(kernel, torch.float64)
    np.testing.assert_allclose(root[0], naive.inverse_root(kernel[0].numpy(), EPS)[0], atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eigenvalues_up_to_the_cutoff_count_as_zero(dtype):
    cutoff = rank_cutoff(2, dtype)
    assert cutoff == 20 * torch.finfo(dtype).eps
    values = torch.tensor([[0.99 * cutoff, 1.0], [1.01 * cutoff, 1.0]], dtype=torch.float64)
    root, ranks, _ = inverse_root(torch.diag_embed(values), dtype)
    assert ranks.tolist() == [1, 2]
    assert root[0, 0, 0] == 0


def test_gradients_shorter_than_the_smallest_normal_number_count_as_zero():
    tiny = torch.finfo(torch.float32).tiny
    kernels = torch.tensor([0.9 * tiny**2, 1.1 * tiny**2], dtype=torch.float64)[:, None, None]
    _, ranks, _ = inverse_root(kernels, torch.float32)
    assert ranks.tolist() == [0, 1]


def test_eigenvalues_between_the_rounding_level_and_the_cutoff_are_dropped():
    cutoff, level = rank_cutoff(4, torch.float32), rounding_level(4, torch.float32)
    ratios = torch.tensor(
        [
            [0.99 * level, 1.01 * level, 0.99 * cutoff, 1],
            [0, 0, 1.01 * cutoff, 1],
            [1.01 * level] * 3 + [1],
            [0.0] * 4,
        ]
    ).double()
    # The ratio to the largest eigenvalue decides, whatever the scale of the gradients.
    for scale in (1e-20, 1, 1e20):
        _, ranks, dropped = inverse_root(torch.diag_embed(scale * ratios), torch.float32)
        assert ranks.tolist() == [1, 2, 1, 0]
        assert dropped.tolist() == [2, 0, 3, 0]


def test_the_rounding_level_is_above_rounding_errors_of_float32_and_of_float64():
    assert rounding_level(2, torch.float32) == (5 * torch.finfo(torch.float32).eps) ** 2
    assert rounding_level(1000, torch.float32) == 10 * 1000 * EPS


def test_no_output_counts_as_dropped_in_float64():
    ratios = torch.logspace(-20, 0, 40, dtype=torch.float64)
    _, ranks, dropped = inverse_root(torch.diag_embed(ratios)[None], torch.float64)
    assert (ranks.item() < 40, dropped.item()) == (True, 0)


def test_roots_without_a_whitening_are_the_identity():
    tiny = torch.finfo(torch.float32).tiny ** 2
    kernels = torch.stack([torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3)]).double()
    kernels = torch.cat([kernels, torch.full((1, 3, 3), 0.9 * tiny, dtype=torch.float64)])
    root, rank, dropped = identity_root(kernels, torch.float32)
    assert root.equal(torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    assert (rank.tolist(), dropped.tolist()) == ([3, 3, 0, 0], [0] * 4)


def make_roots(rank=3):
    factors = random_matrices(5, 4, 3)[:, :, :rank]
    kernels = factors @ factors.mT
    return kernels, *inverse_root(kernels, torch.float64)[:2]


def test_no_whitening_leaves_jacobians_as_they_are():
    _, root, rank = make_roots()
    assert WHITENINGS["none"](root, rank) is None


@pytest.mark.parametrize("rank", [0, 2, 3])
def test_half_whitening_makes_the_self_kernel_a_projection(rank):
    kernels, root, ranks = make_roots(rank)
    half = WHITENINGS["half"](root, ranks)
    projection = half @ kernels @ half
    np.testing.assert_allclose(projection @ projection, projection, atol=1e-8)
    np.testing.assert_allclose(np.trace(projection, axis1=1, axis2=2), [rank] * 4, atol=1e-8)


@pytest.mark.parametrize("rank", [0, 2, 3])
def test_unit_whitening_gives_self_kernels_of_trace_one(rank):
    kernels, root, ranks = make_roots(rank)
    unit = WHITENINGS["unit"](root, ranks)
    traces = np.trace(unit @ kernels @ unit, axis1=1, axis2=2)
    np.testing.assert_allclose(traces, [float(rank > 0)] * 4, atol=1e-8)


def loop_largest_trace(K, reflections):
    """Return the largest trace of R K over O(2) or SO(2), on a grid of angles."""
    angles = np.linspace(0, 2 * np.pi, 20001)
    rotation = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]])
    largest = np.einsum("ija,ji->a", rotation, K).max()
    if reflections:
        mirrored = np.diag([1.0, -1.0])
        largest = max(largest, np.einsum("ija,ji->a", rotation, mirrored @ K).max())
    return largest


@pytest.mark.parametrize("metric", ["rotation", "orthogonal"])
def test_metrics_are_the_largest_trace_over_their_group(metric):
    kernels = random_matrices(1, 20, 2)
    expected = [loop_largest_trace(K.numpy(), metric == "orthogonal") for K in kernels]
    np.testing.assert_allclose(METRICS[metric](kernels), expected, atol=1e-6)


def test_rotation_is_the_posters_formula_for_two_outputs():
    kernels = random_matrices(2, 50, 2)
    rank = torch.full((50,), 2)
    reduced = reduce_kernel(kernels[None], "rotation", rank[:1], rank)[0]
    squared = kernels.square().sum((1, 2)) + 2 * torch.linalg.det(kernels)
    np.testing.assert_allclose(reduced, 0.5 * squared.clamp(min=0).sqrt(), atol=1e-7)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_metrics_are_ordered(size):
    kernels = random_matrices(3, 50, size)
    trace, rotation, orthogonal = (METRICS[name](kernels) for name in METRICS)
    assert (trace <= rotation + 1e-12).all()
    assert (rotation <= orthogonal + 1e-12).all()


def test_a_reduced_kernel_is_divided_by_the_root_of_the_ranks():
    kernels = random_matrices(6, 6, 3).reshape(2, 3, 3, 3)
    rank, other_rank = torch.tensor([3, 0]), torch.tensor([1, 2, 3])
    reduced = reduce_kernel(kernels, "trace", rank, other_rank)
    first = [np.trace(kernels[0, m]) / np.sqrt(3 * other_rank[m].item()) for m in range(3)]
    np.testing.assert_allclose(reduced, [first, [0, 0, 0]], atol=1e-12)


def test_the_influence_kernel_is_the_naive_one():
    generator = np.random.default_rng(7)
    J, J2 = generator.normal(size=(4, 3, 8)), generator.normal(size=(5, 3, 8))
    root, *_ = inverse_root(torch.as_tensor(np.einsum("nop,nqp->noq", J, J)), torch.float64)
    half = torch.einsum("nao,nmop->nmap", root, torch.as_tensor(naive.kernel(J, J2)))
    np.testing.assert_allclose(influence_kernel(half, root), naive.influence(J, J2), atol=1e-10)
