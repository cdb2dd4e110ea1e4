"""Nearest neighbours by a running selection, against sorting whole rows."""

import itertools

import joblib
import numpy as np
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sknetsim._features.source import FeatureSource
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes.nearest import (
    Nearest,
    WithinRadius,
    compute_similarities,
    find_nearest,
    rerank,
)
from sknetsim._passes.reductions import gram_matrix

from ..cases import NETWORKS, build

BY_NAME = {case.name: case for case in NETWORKS}


def draw_slices(draw, length):
    """Draw slices that split a range at random places."""
    inner = draw(st.sets(st.integers(1, length - 1))) if length > 1 else set()
    edges = [0, *sorted(inner), length]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


@st.composite
def tilings(draw):
    """Draw a matrix with many equal distances, its tiles in any order, and a number."""
    queries, others = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    matrix = generator.integers(0, draw(st.integers(1, 6)), (queries, others)).astype(float)
    tiles = [
        (rows, columns)
        for rows in draw_slices(draw, queries)
        for columns in draw_slices(draw, others)
    ]
    return matrix, draw(st.permutations(tiles)), draw(st.integers(1, others))


def sort_rows(matrix, count):
    """Return the smallest entries of each row and their columns, of equal entries the first."""
    columns = np.broadcast_to(np.arange(matrix.shape[1]), matrix.shape)
    order = np.lexsort((columns, matrix), axis=1)[:, :count]
    return np.take_along_axis(matrix, order, axis=1), order


def copy_distances(matrix, eps):
    return matrix.copy()


def make_reduction(matrix, reduction, limit, symmetric=False):
    whole = slice(0, len(matrix)), slice(0, matrix.shape[1])
    return reduction(limit, copy_distances, 0, symmetric, *whole)


def select_nearest(matrix, tiles, count):
    nearest = make_reduction(matrix, Nearest, count)
    for rows, columns in tiles:
        nearest.add(rows, columns, torch.as_tensor(matrix[rows, columns]))
    return nearest.distances, nearest.indices


def merge_nearest(matrix, tiles, count):
    """Select the nearest of each tile, as one worker per tile does, and merge the results."""
    nearest = make_reduction(matrix, Nearest, count)
    for rows, columns in tiles:
        part = Nearest(count, copy_distances, 0, False, rows, columns)
        part.add(rows, columns, torch.as_tensor(matrix[rows, columns]))
        nearest.merge(part)
    return nearest.distances, nearest.indices


@settings(max_examples=200, deadline=None)
@given(tilings())
def test_the_nearest_are_those_of_sorted_rows(drawn):
    matrix, tiles, count = drawn
    np.testing.assert_array_equal(select_nearest(matrix, tiles, count), sort_rows(matrix, count))


@settings(max_examples=100, deadline=None)
@given(tilings())
def test_the_nearest_of_parts_are_merged(drawn):
    matrix, tiles, count = drawn
    np.testing.assert_array_equal(merge_nearest(matrix, tiles, count), sort_rows(matrix, count))


def test_infinite_distances_come_last():
    matrix = np.array([[np.inf, 1.0, 0.0], [2.0, np.inf, 0.0]])
    tiles = [(slice(0, 2), slice(column, column + 1)) for column in range(3)]
    assert select_nearest(matrix, tiles, 2)[1].tolist() == [[2, 1], [2, 0]]


def make_source(name, n_samples=14):
    network, X = build(BY_NAME[name], n_samples=n_samples)
    return GradientEngine(resolve_network(network)), X


@pytest.mark.parametrize("name", BY_NAME)
def test_similarities_of_candidates_are_entries_of_the_gram_matrix(name):
    network, X = build(BY_NAME[name], n_samples=9)
    source = GradientEngine(resolve_network(network), BY_NAME[name].output)
    candidates = np.random.default_rng(0).integers(0, 5, size=(4, 3))
    similarities = compute_similarities(source, Samples(X[5:]), Samples(X[:5]), candidates)
    expected = np.take_along_axis(
        gram_matrix(source, Samples(X[5:]), Samples(X[:5])), candidates, axis=1
    )
    np.testing.assert_allclose(similarities, expected, atol=1e-10)


@pytest.mark.parametrize("megabytes", [0.02, 0.1])
@pytest.mark.parametrize("queries", [3, 11])
def test_a_small_budget_changes_no_similarity(megabytes, queries):
    source, X = make_source("MLP")
    first, rest = X[:queries], X[queries:]
    candidates = np.random.default_rng(0).integers(0, len(rest), size=(queries, 3))
    expected = compute_similarities(source, Samples(first), Samples(rest), candidates)
    with sklearn.config_context(working_memory=megabytes):
        actual = compute_similarities(source, Samples(first), Samples(rest), candidates)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_similarities_are_between_minus_one_and_one():
    rows = np.array([[1.5, 0.0], [-1.5, 0.0]])
    similarities = compute_similarities(
        FeatureSource(), Samples(rows), Samples(rows), np.array([[0, 1], [0, 1]])
    )
    assert similarities.tolist() == [[1, -1], [-1, 1]]


def cosine_distance(gram):
    return 1 - gram


def test_candidates_are_sorted_by_the_entries_of_the_gram_matrix():
    source, X = make_source("CNN with BatchNorm")
    candidates = np.random.default_rng(0).permuted(np.tile(np.arange(9), (5, 1)), axis=1)
    distances, indices = rerank(source, Samples(X[9:]), Samples(X[:9]), candidates, cosine_distance)
    expected, order = sort_rows(1 - gram_matrix(source, Samples(X[9:]), Samples(X[:9])), 9)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(distances, expected, atol=1e-10)


def test_candidates_at_equal_distances_keep_the_order_of_the_samples():
    source, X = make_source("MLP")
    candidates = np.array([[3, 7, 1], [8, 2, 5]])
    _, indices = rerank(source, Samples(X[:2]), Samples(X), candidates, np.zeros_like)
    assert indices.tolist() == [[1, 3, 7], [2, 5, 8]]


@settings(max_examples=100, deadline=None)
@given(tilings(), st.floats(0, 6))
def test_samples_within_a_radius_are_those_of_sorted_rows(drawn, radius):
    matrix, tiles, _ = drawn
    within = make_reduction(matrix, WithinRadius, radius)
    merged = make_reduction(matrix, WithinRadius, radius)
    for rows, columns in tiles:
        part = WithinRadius(radius, copy_distances, 0, False, rows, columns)
        for target in (within, part):
            target.add(rows, columns, torch.as_tensor(matrix[rows, columns]))
        merged.merge(part)
    distances, order = sort_rows(matrix, matrix.shape[1])
    for result in (within, merged):
        for row, (near, indices) in enumerate(zip(*result.to_arrays(), strict=True)):
            count = (matrix[row] <= radius).sum()
            np.testing.assert_array_equal(near, distances[row, :count])
            np.testing.assert_array_equal(indices, order[row, :count])


@pytest.mark.parametrize("reduction", [Nearest, WithinRadius])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_nearest_of_one_set_are_other_samples_than_itself(reduction, n_jobs):
    source, X = make_source("MLP")
    source.n_jobs = n_jobs
    distances = 1 - gram_matrix(source, Samples(X))
    np.fill_diagonal(distances, np.inf)
    expected, order = sort_rows(distances, 4)
    limit = 4 if reduction is Nearest else np.sort(expected[:, -1])[5]
    with joblib.parallel_config(backend="threading"):
        nearest = find_nearest(
            source, Samples(X), None, reduction, limit, lambda gram, eps: 1 - gram
        )
    if reduction is Nearest:
        np.testing.assert_array_equal(nearest.indices, order)
        np.testing.assert_allclose(nearest.distances, expected, atol=1e-10)
    else:
        for row, indices in enumerate(nearest.to_arrays()[1]):
            assert row not in indices
            assert set(np.flatnonzero(distances[row] < limit - 1e-9)) <= set(indices)
