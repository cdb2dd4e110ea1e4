"""Nearest neighbours by a running selection, against sorting whole rows."""

import itertools
import pickle
import tracemalloc

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
from sknetsim._passes import nearest as nearest_module
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


def find_within_radius(matrix, radius, rows_per_tile, columns_per_tile):
    """Return the rows of the matrix up to a radius, by tiles of one size."""
    within = make_reduction(matrix, WithinRadius, radius)
    for row in range(0, len(matrix), rows_per_tile):
        for column in range(0, matrix.shape[1], columns_per_tile):
            tile = slice(row, row + rows_per_tile), slice(column, column + columns_per_tile)
            within.add(*tile, torch.as_tensor(matrix[tile]))
    return within


@pytest.mark.parametrize("stored_bytes", [1, 100, 10_000])
def test_the_size_of_the_storage_changes_no_neighbour_within_a_radius(monkeypatch, stored_bytes):
    monkeypatch.setattr(nearest_module, "_STORED_BYTES", stored_bytes)
    matrix = np.random.default_rng(0).integers(0, 9, (12, 40)).astype(float)
    distances, indices = find_within_radius(matrix, 3, 4, 5).to_arrays()
    for row, (near, columns) in enumerate(zip(distances, indices, strict=True)):
        order = np.argsort(matrix[row], kind="stable")[: (matrix[row] <= 3).sum()]
        assert columns.tolist() == order.tolist()
        assert near.tolist() == matrix[row, order].tolist()


def test_transposed_tiles_have_their_neighbours_within_a_radius():
    matrix = np.random.default_rng(0).random((5, 7))
    within = WithinRadius(0.5, lambda gram, eps: gram, 0, False, slice(0, 5), slice(0, 7))
    within.add(slice(0, 5), slice(0, 7), torch.as_tensor(matrix.T.copy()).T)
    for row, columns in enumerate(within.to_arrays()[1]):
        assert sorted(columns) == np.flatnonzero(matrix[row] <= 0.5).tolist()


def test_equally_many_neighbours_within_a_radius_are_an_array_of_arrays():
    distances, indices = find_within_radius(np.zeros((3, 4)), 1, 3, 2).to_arrays()
    assert distances.shape == indices.shape == (3,)
    assert indices[2].tolist() == [0, 1, 2, 3]


def test_neighbours_within_a_radius_take_at_most_twice_the_memory_of_the_results(monkeypatch):
    monkeypatch.setattr(nearest_module, "_STORED_BYTES", 2**16)
    matrix = np.random.default_rng(0).random((200, 5000))
    tracemalloc.start()
    try:
        results = find_within_radius(matrix, 0.2, 50, 250).to_arrays()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * sum(array.nbytes for arrays in results for array in arrays)


def test_unused_storage_is_not_sent_to_other_processes():
    within = find_within_radius(np.random.default_rng(0).random((8, 50)), 0.5, 4, 10)
    pickled = pickle.dumps(within._tiles), pickle.dumps([within._positions, within._distances])
    assert sum(map(len, pickled)) < 10_000


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
