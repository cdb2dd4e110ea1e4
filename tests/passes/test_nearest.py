"""The running selection of the nearest against sorting whole rows."""

import itertools

import numpy as np
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sknetsim._features.rows import FeatureRows
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes import nearest as _nearest
from sknetsim._passes import reductions as _reductions

from ..cases import NETWORKS, build

BY_NAME = {case.name: case for case in NETWORKS}


def cuts(draw, length):
    """Slices that part a range anywhere."""
    inner = draw(st.sets(st.integers(1, length - 1))) if length > 1 else set()
    edges = [0, *sorted(inner), length]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


@st.composite
def tilings(draw):
    """A matrix with many equal distances, tiles of it in any order, and how many are wanted."""
    queries, others = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    matrix = generator.integers(0, draw(st.integers(1, 6)), (queries, others)).astype(float)
    tiles = [(rows, columns) for rows in cuts(draw, queries) for columns in cuts(draw, others)]
    return matrix, draw(st.permutations(tiles)), draw(st.integers(1, others))


def sorted_rows(matrix, count):
    columns = np.broadcast_to(np.arange(matrix.shape[1]), matrix.shape)
    order = np.lexsort((columns, matrix), axis=1)[:, :count]
    return np.take_along_axis(matrix, order, axis=1), order


def itself(matrix, eps):
    return matrix.copy()


def reduction(matrix, kind, limit):
    return kind(limit, itself, 0, False, slice(0, len(matrix)), slice(0, matrix.shape[1]))


def selected(matrix, tiles, count):
    found = reduction(matrix, _nearest.Nearest, count)
    for rows, columns in tiles:
        found.add(rows, columns, torch.as_tensor(matrix[rows, columns]))
    return found.distances, found.indices


def merged(matrix, tiles, count):
    """As by workers, one for each tile."""
    found = reduction(matrix, _nearest.Nearest, count)
    for rows, columns in tiles:
        part = _nearest.Nearest(count, itself, 0, False, rows, columns)
        part.add(rows, columns, torch.as_tensor(matrix[rows, columns]))
        found.merge(part)
    return found.distances, found.indices


@settings(max_examples=200, deadline=None)
@given(tilings())
def test_nearest_are_those_of_whole_rows_and_of_equal_ones_the_first(drawn):
    matrix, tiles, count = drawn
    np.testing.assert_array_equal(selected(matrix, tiles, count), sorted_rows(matrix, count))


@settings(max_examples=100, deadline=None)
@given(tilings())
def test_nearest_of_parts_are_merged(drawn):
    matrix, tiles, count = drawn
    np.testing.assert_array_equal(merged(matrix, tiles, count), sorted_rows(matrix, count))


def test_what_is_infinitely_far_comes_last():
    matrix = np.array([[np.inf, 1.0, 0.0], [2.0, np.inf, 0.0]])
    tiles = [(slice(0, 2), slice(column, column + 1)) for column in range(3)]
    assert selected(matrix, tiles, 2)[1].tolist() == [[2, 1], [2, 0]]


def source_of(name, n_samples=14):
    network, X = build(BY_NAME[name], n_samples=n_samples)
    return GradientEngine(resolve_network(network)), X


@pytest.mark.parametrize("name", BY_NAME)
def test_similarities_of_candidates_are_entries_of_the_gram(name):
    network, X = build(BY_NAME[name], n_samples=9)
    source = GradientEngine(resolve_network(network), BY_NAME[name].output)
    candidates = np.random.default_rng(0).integers(0, 5, size=(4, 3))
    found = _nearest.compute_similarities(source, Samples(X[5:]), Samples(X[:5]), candidates)
    expected = np.take_along_axis(
        _reductions.gram_matrix(source, Samples(X[5:]), Samples(X[:5])), candidates, axis=1
    )
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("megabytes", [0.02, 0.1])
@pytest.mark.parametrize("queries", [3, 11])
def test_a_small_budget_changes_no_similarity(megabytes, queries):
    source, X = source_of("MLP")
    first, rest = X[:queries], X[queries:]
    candidates = np.random.default_rng(0).integers(0, len(rest), size=(queries, 3))
    expected = _nearest.compute_similarities(source, Samples(first), Samples(rest), candidates)
    with sklearn.config_context(working_memory=megabytes):
        found = _nearest.compute_similarities(source, Samples(first), Samples(rest), candidates)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_similarities_are_at_most_one():
    rows = np.array([[1.5, 0.0], [-1.5, 0.0]])
    found = _nearest.compute_similarities(
        FeatureRows(), Samples(rows), Samples(rows), np.array([[0, 1], [0, 1]])
    )
    assert found.tolist() == [[1, -1], [-1, 1]]


def cosine(gram):
    return 1 - gram


def test_all_rows_as_candidates_are_put_in_the_order_of_the_gram():
    source, X = source_of("CNN with BatchNorm")
    candidates = np.random.default_rng(0).permuted(np.tile(np.arange(9), (5, 1)), axis=1)
    found, indices = _nearest.rerank(source, Samples(X[9:]), Samples(X[:9]), candidates, cosine)
    distances, order = sorted_rows(
        1 - _reductions.gram_matrix(source, Samples(X[9:]), Samples(X[:9])), 9
    )
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(found, distances, atol=1e-10)


def test_candidates_at_equal_distances_keep_the_order_of_the_rows():
    source, X = source_of("MLP")
    candidates = np.array([[3, 7, 1], [8, 2, 5]])
    _, indices = _nearest.rerank(source, Samples(X[:2]), Samples(X), candidates, np.zeros_like)
    assert indices.tolist() == [[1, 3, 7], [2, 5, 8]]
