"""Counts of similar samples, their means over the sphere, distances and intrinsic dimensions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from sknetsim._kernels.similarities import (
    DISTANCES,
    SIMILARITIES,
    PowerCount,
    ThresholdCount,
    distinct_squared_distances,
    log_mean_power,
    log_mean_threshold,
    two_nearest_dimension,
)

EPS = torch.finfo(torch.float64).eps


def integrate_over_sphere(function, dimension, start=0.0):
    """Return the mean of a function of the cosine of uniform directions; it is 0 below start."""

    def weight(u):
        return (1 - u**2) ** ((dimension - 3) / 2)

    total = integrate.quad(weight, -1, 1, limit=200)[0]
    return integrate.quad(lambda u: function(u) * weight(u), start, 1, limit=200)[0] / total


@settings(max_examples=30, deadline=None)
@given(dimension=st.floats(3, 30), alpha=st.floats(0.5, 40))
def test_the_mean_of_powers_is_an_integral_over_the_sphere(dimension, alpha):
    expected = integrate_over_sphere(lambda u: u**alpha, dimension)
    assert np.exp(log_mean_power(alpha, dimension)) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(dimension=st.floats(3, 30), threshold=st.floats(0, 0.95))
def test_the_mean_of_thresholds_is_an_integral_over_the_sphere(dimension, threshold):
    expected = integrate_over_sphere(lambda u: 1.0, dimension, start=threshold)
    mean = np.exp(log_mean_threshold(threshold, dimension))
    assert mean == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_the_logarithm_of_a_mean_that_underflows_is_finite(threshold):
    """The expected value is the leading term of the integral, in logarithms."""
    dimension = 5000.0
    a, x = (dimension - 1) / 2, 1 - threshold**2
    leading = a * np.log(x) - np.log(a) - special.betaln(a, 0.5) - np.log(2) - np.log(threshold)
    assert special.betainc(a, 0.5, x) == 0.0 or threshold == 0.5
    assert log_mean_threshold(threshold, dimension) == pytest.approx(leading, rel=1e-3)


def estimate_dimension(gram):
    squared = distinct_squared_distances(gram, EPS)
    np.fill_diagonal(squared, np.inf)
    padded = np.pad(squared, ((0, 0), (0, 2)), constant_values=np.inf)
    return two_nearest_dimension(np.sort(padded, axis=1)[:, :2])


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_the_intrinsic_dimension_of_a_sphere_in_a_larger_space_is_that_of_the_sphere(dimension):
    generator = np.random.default_rng(0)
    points = generator.normal(size=(2000, dimension + 1))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    frame = np.linalg.qr(generator.normal(size=(40, dimension + 1)))[0]
    gram = (points @ frame.T) @ (points @ frame.T).T
    assert estimate_dimension(gram) == pytest.approx(dimension, rel=0.12)


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
def test_the_intrinsic_dimension_of_degenerate_data_is_one(points):
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert estimate_dimension(points @ points.T) == 1.0


def test_threshold_counts_do_not_lose_a_sample_itself():
    eps = torch.finfo(torch.float32).eps
    gram = np.array([1 - 2 * eps, 1 - 100 * eps, 0.5])
    assert ThresholdCount(1.0)(gram, eps).tolist() == [1, 0, 0]


def test_threshold_counts_are_one_from_the_threshold_on():
    gram = np.array([-1, 0, 0.5, 0.6, 1])
    assert ThresholdCount(0.5)(gram, EPS).tolist() == [0, 0, 1, 1, 1]


def test_power_counts_are_powers_of_positive_similarities():
    gram = np.array([-1, 0, 0.5, 1, 1 + EPS])
    assert PowerCount(3.0)(gram, EPS).tolist() == [0, 0, 0.125, 1, 1]


def test_distances_are_those_of_unit_vectors():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(2, 6, 4))
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    gram = np.einsum("ni,mi->nm", *points)
    expected = np.linalg.norm(points[0][:, None] - points[1], axis=2)
    np.testing.assert_allclose(DISTANCES["euclidean"](gram, EPS), expected, atol=1e-12)
    np.testing.assert_allclose(DISTANCES["cosine"](gram, EPS), 1 - gram, atol=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
def test_rounding_does_not_separate_equal_samples(name):
    gram = np.array([1 + 2 * EPS, 1.0, 1 - 15 * EPS])
    assert DISTANCES[name](gram, EPS).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", DISTANCES)
def test_similarities_are_the_inverse_of_distances(name):
    gram = np.linspace(-1, 1, 9)
    np.testing.assert_allclose(SIMILARITIES[name](DISTANCES[name](gram, EPS)), gram, atol=1e-12)


def test_duplicates_are_infinitely_far():
    gram = np.array([1.0, 1 - 16 * EPS, 0.5, -1.0])
    assert distinct_squared_distances(gram, EPS).tolist() == [np.inf, np.inf, 1, 4]


def test_the_dimension_is_the_slope_of_the_regression():
    ratios = np.array([2.0, 1.5, 3.0, 1.2, 4.0, 1.1, 2.5, 1.3, 6.0, 1.8])
    squared = np.stack([np.ones(10), ratios**2], axis=1)
    logarithms = np.log(np.sort(ratios))[:9]
    survival = -np.log(1 - np.arange(1, 10) / 10)
    slope = np.linalg.lstsq(logarithms[:, None], survival, rcond=None)[0][0]
    assert two_nearest_dimension(squared) == pytest.approx(slope, rel=1e-12)
