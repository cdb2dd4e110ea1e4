"""Roots, rotation forms and normalisers against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from sknetsim._kernels import similarities as _kernels__similarities
from sknetsim._kernels import whitening as _kernels

from .. import naive

EPS = torch.finfo(torch.float64).eps


def random_matrices(seed, count, size):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=(count, size, size)))


@pytest.mark.parametrize(("size", "rank"), [(1, 1), (3, 3), (4, 2), (3, 0)])
def test_inverse_root_is_the_pseudo_inverse_root(size, rank):
    factors = random_matrices(0, 5, size)[:, :, :rank]
    kernels = factors @ factors.mT
    root, found = _kernels.inverse_root(kernels, torch.float64)
    assert found.tolist() == [rank] * 5
    expected = np.linalg.pinv(kernels.numpy(), rcond=1e-10)
    np.testing.assert_allclose(root @ root, expected, atol=1e-8)


def max_over_rotations(K, reflections):
    """The largest trace of R K over O(2) or SO(2), by a grid of angles."""
    angles = np.linspace(0, 2 * np.pi, 20001)
    rotation = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]])
    best = np.einsum("ija,ji->a", rotation, K).max()
    if reflections:
        mirrored = np.diag([1.0, -1.0])
        best = max(best, np.einsum("ija,ji->a", rotation, mirrored @ K).max())
    return best


@pytest.mark.parametrize("metric", ["rotation", "orthogonal"])
def test_metrics_are_the_largest_trace_over_their_group(metric):
    kernels = random_matrices(1, 20, 2)
    found = _kernels.METRICS[metric](kernels)
    expected = [max_over_rotations(K.numpy(), metric == "orthogonal") for K in kernels]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rotation_is_the_posters_formula_for_two_outputs():
    kernels = random_matrices(2, 50, 2)
    rank = torch.full((50,), 2)
    found = _kernels.reduce_kernel(kernels[None], "rotation", rank[:1], rank)[0]
    squared = kernels.square().sum((1, 2)) + 2 * torch.linalg.det(kernels)
    np.testing.assert_allclose(found, 0.5 * squared.clamp(min=0).sqrt(), atol=1e-7)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_metrics_are_ordered(size):
    kernels = random_matrices(3, 50, size)
    trace, rotation, orthogonal = (_kernels.METRICS[name](kernels) for name in _kernels.METRICS)
    assert (trace <= rotation + 1e-12).all()
    assert (rotation <= orthogonal + 1e-12).all()


def sphere_mean(function, dimension, start=0.0):
    """Mean over cosines of uniform directions of a function that is 0 below start."""

    def weight(u):
        return (1 - u**2) ** ((dimension - 3) / 2)

    total = integrate.quad(weight, -1, 1, limit=200)[0]
    return integrate.quad(lambda u: function(u) * weight(u), start, 1, limit=200)[0] / total


@settings(max_examples=30, deadline=None)
@given(dimension=st.floats(3, 30), alpha=st.floats(0.5, 40))
def test_mean_of_powers(dimension, alpha):
    expected = sphere_mean(lambda u: u**alpha, dimension)
    assert np.exp(_kernels__similarities.log_mean_power(alpha, dimension)) == pytest.approx(
        expected, rel=1e-5
    )


@settings(max_examples=30, deadline=None)
@given(dimension=st.floats(3, 30), threshold=st.floats(0, 0.95))
def test_mean_of_thresholds(dimension, threshold):
    expected = sphere_mean(lambda u: 1.0, dimension, start=threshold)
    found = np.exp(_kernels__similarities.log_mean_threshold(threshold, dimension))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_mean_of_thresholds_where_it_underflows(threshold):
    """Against the leading term of the integral in logarithms."""
    dimension = 5000.0
    a, x = (dimension - 1) / 2, 1 - threshold**2
    leading = a * np.log(x) - np.log(a) - special.betaln(a, 0.5) - np.log(2) - np.log(threshold)
    assert special.betainc(a, 0.5, x) == 0.0 or threshold == 0.5
    assert _kernels__similarities.log_mean_threshold(threshold, dimension) == pytest.approx(
        leading, rel=1e-3
    )


def estimated_dimension(gram):
    squared = _kernels__similarities.distinct_squared_distances(gram, EPS)
    np.fill_diagonal(squared, np.inf)
    padded = np.pad(squared, ((0, 0), (0, 2)), constant_values=np.inf)
    return _kernels__similarities.two_nearest_dimension(np.sort(padded, axis=1)[:, :2])


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_intrinsic_dimension_of_a_sphere_in_a_larger_space(dimension):
    generator = np.random.default_rng(0)
    points = generator.normal(size=(2000, dimension + 1))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    frame = np.linalg.qr(generator.normal(size=(40, dimension + 1)))[0]
    gram = (points @ frame.T) @ (points @ frame.T).T
    assert estimated_dimension(gram) == pytest.approx(dimension, rel=0.12)


@pytest.mark.parametrize(
    "points",
    [
        np.ones((1, 2)),
        np.ones((2, 2)),
        np.ones((50, 3)),
        np.eye(3),
        np.repeat(np.eye(4), 5, axis=0),
    ],
    ids=["one", "two", "constant", "equidistant", "duplicates"],
)
def test_intrinsic_dimension_of_degenerate_data_is_one(points):
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert estimated_dimension(points @ points.T) == 1.0


def test_threshold_counts_do_not_lose_a_sample_itself():
    eps = torch.finfo(torch.float32).eps
    gram = np.array([1 - 2 * eps, 1 - 100 * eps, 0.5])
    assert _kernels__similarities.COUNTS["threshold"].count(gram, 1.0, eps).tolist() == [1, 0, 0]


def test_naive_root_agrees():
    kernel = random_matrices(4, 1, 3)
    kernel = kernel @ kernel.mT
    root, _ = _kernels.inverse_root(kernel, torch.float64)
    np.testing.assert_allclose(root[0], naive.inverse_root(kernel[0].numpy(), EPS)[0], atol=1e-9)
