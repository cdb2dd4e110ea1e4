"""Approximate indexes: most of the nearest rows, at exact distances."""

import pickle
import sys
import tracemalloc

import numpy as np
import pytest
import sklearn
import torch
from torch import nn
from torch.utils.data import TensorDataset

from sknetsim import FeatureStore, GradientFeaturizer, NetworkNeighbors, featurize
from sknetsim._features.indexes import (
    find_nearest_candidates,
    iterate_features,
    similarities,
)
from sknetsim._networks.samples import Samples

SAMPLES = 2000


# The first use of pynndescent compiles it, which takes a minute or more.
algorithms = pytest.mark.parametrize(
    "algorithm", ["faiss", pytest.param("pynndescent", marks=pytest.mark.slow)]
)


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    X = np.random.default_rng(0).standard_normal((SAMPLES, 8))
    return network, X


@pytest.fixture(scope="module")
def features(data):
    network, X = data
    return GradientFeaturizer(network, n_components=32, random_state=0).fit_transform(X)


def make_neighbors(algorithm, estimator="features", **settings):
    pytest.importorskip(algorithm)
    return NetworkNeighbors(
        estimator, algorithm=algorithm, n_neighbors=10, random_state=0, **settings
    )


def measure_recall(actual, expected):
    """Return the share of the expected rows that are among the actual ones."""
    return (expected[:, :, None] == actual[:, None]).any(axis=2).mean()


@algorithms
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_most_of_the_nearest_rows_are_found_at_exact_distances(features, algorithm, distance):
    approximate = make_neighbors(algorithm, distance=distance).fit(features)
    exact = NetworkNeighbors("features", n_neighbors=10, distance=distance).fit(features)
    queries = features[::7] * 0.9
    distances, indices = approximate.kneighbors(queries)
    expected, nearest = exact.kneighbors(queries)
    assert measure_recall(indices, nearest) > 0.9
    assert approximate.recall_ == pytest.approx(measure_recall(indices, nearest), abs=0.05)
    same = indices == nearest
    np.testing.assert_allclose(distances[same], expected[same], atol=1e-6)
    assert (np.diff(distances, axis=1) >= 0).all()


@algorithms
def test_no_row_is_its_own_neighbour(features, algorithm):
    distances, indices = make_neighbors(algorithm).fit(features).kneighbors()
    _, nearest = NetworkNeighbors("features", n_neighbors=10).fit(features).kneighbors()
    assert (indices != np.arange(SAMPLES)[:, None]).all() and np.isfinite(distances).all()
    assert measure_recall(indices, nearest) > 0.9


@algorithms
def test_candidates_are_sorted_by_exact_similarities(data, algorithm):
    network, X = data
    approximate = make_neighbors(algorithm, network, n_components=32, n_candidates=60).fit(X)
    distances, indices = approximate.kneighbors(X[:50] + 0.01)
    expected, nearest = NetworkNeighbors(network, n_neighbors=10).fit(X).kneighbors(X[:50] + 0.01)
    assert measure_recall(indices, nearest) > 0.9
    same = indices == nearest
    np.testing.assert_allclose(distances[same], expected[same], atol=1e-9)


@algorithms
def test_the_index_is_saved_with_the_estimator(features, algorithm, monkeypatch):
    estimator = make_neighbors(algorithm).fit(features)
    twin = pickle.loads(pickle.dumps(estimator))
    monkeypatch.setattr("sknetsim._features.indexes.fit_index", None)
    np.testing.assert_array_equal(
        twin.kneighbors(features[:50])[1], estimator.kneighbors(features[:50])[1]
    )


@algorithms
def test_a_store_can_be_indexed(data, features, tmp_path, algorithm):
    network, X = data
    featurizer = GradientFeaturizer(network, n_components=32, random_state=0).fit(X)
    store = featurize(featurizer, X, tmp_path / "store")
    actual = make_neighbors(algorithm).fit(store)
    expected = make_neighbors(algorithm).fit(features)
    assert isinstance(actual._references.data, FeatureStore)
    assert measure_recall(actual.kneighbors(store)[1], expected.kneighbors(features)[1]) > 0.9


@algorithms
@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_few_rows_are_all_found(features, algorithm, count):
    few = features[:count]
    actual = make_neighbors(algorithm).fit(few)
    exact = NetworkNeighbors("features").fit(few)
    for queries, wanted in ((few, count), (None, count - 1))[: 1 + (count > 1)]:
        np.testing.assert_array_equal(
            actual.kneighbors(queries, wanted)[1], exact.kneighbors(queries, wanted)[1]
        )


@algorithms
@pytest.mark.parametrize("queries", [None, slice(0, 30)], ids=["fitted", "others"])
def test_clusters_of_near_rows_are_found_once_each(algorithm, queries):
    generator = np.random.default_rng(0)
    rows = np.repeat(generator.standard_normal((8, 16)), 100, axis=0)
    rows += 0.05 * generator.standard_normal(rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    X = None if queries is None else rows[queries]
    distances, indices = make_neighbors(algorithm).fit(rows).kneighbors(X, 150)
    assert all(len(set(row)) == 150 for row in indices.tolist())
    assert queries is not None or (indices != np.arange(800)[:, None]).all()
    assert np.isfinite(distances).all() and (np.diff(distances, axis=1) >= 0).all()


def test_any_row_at_the_same_distance_counts_as_found(features):
    rows = np.repeat(features[:60], 20, axis=0)
    assert make_neighbors("faiss").fit(rows).recall_ > 0.98


def test_rows_that_cannot_be_features_raise_an_error(features):
    with pytest.raises(ValueError, match="rows of length up to"):
        make_neighbors("faiss").fit(features).kneighbors(100 * features[:2])


def test_a_dataset_of_features_can_be_indexed(features):
    rows = TensorDataset(torch.as_tensor(features), torch.zeros(SAMPLES))
    actual = make_neighbors("faiss").fit(rows).kneighbors(features[:9])[1]
    expected = make_neighbors("faiss").fit(features).kneighbors(features[:9])[1]
    np.testing.assert_array_equal(actual, expected)


def test_more_lists_are_searched_if_they_contain_too_few_rows(features):
    estimator = make_neighbors("faiss").fit(features)
    distances, indices = estimator.kneighbors(features[:5], 900)
    assert np.isfinite(distances).all()
    assert all(len(set(row)) == 900 for row in indices.tolist())


def test_brute_force_finds_all_neighbours(features):
    assert NetworkNeighbors("features").fit(features).recall_ == 1


def test_an_index_without_features_raises_an_error(data):
    network, X = data
    with pytest.raises(ValueError, match=r"n_components.* got None with algorithm='faiss'"):
        make_neighbors("faiss", network).fit(X)


def test_unknown_algorithms_raise_an_error(features):
    with pytest.raises(ValueError, match="'algorithm' parameter"):
        NetworkNeighbors("features", algorithm="guess").fit(features)


@pytest.mark.parametrize("algorithm", ["faiss", "pynndescent"])
def test_a_missing_package_raises_an_error_with_the_cure(features, monkeypatch, algorithm):
    monkeypatch.setitem(sys.modules, algorithm, None)
    with pytest.raises(ImportError, match=r"must be 'brute' .*sknetsim\[neighbors\]"):
        NetworkNeighbors("features", algorithm=algorithm).fit(features)


class GivenCandidates:
    """Index that returns given candidates."""

    def __init__(self, given):
        self.given = np.array(given)

    def widen(self):
        return False

    def candidates(self, queries, count):
        return self.given[: len(queries), :count]


def test_similarities_of_candidates_are_inner_products_of_their_features(features):
    candidates = np.array([[3, 3, 0], [7, 1, 2]])
    expected = [[features[5 + n] @ features[c] for c in row] for n, row in enumerate(candidates)]
    actual = similarities(features[5:7], Samples(features), candidates)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("megabytes", [0.001, 0.05])
def test_a_small_budget_changes_no_similarity_of_candidates(features, megabytes):
    candidates = np.random.default_rng(0).integers(0, SAMPLES, (30, 7))
    expected = similarities(features[:30], Samples(features), candidates)
    with sklearn.config_context(working_memory=megabytes):
        actual = similarities(features[:30], Samples(features), candidates)
    np.testing.assert_array_equal(actual, expected)


def measure_peak(function, *arguments):
    """Return the largest memory of a call, in MiB."""
    tracemalloc.start()
    try:
        result = function(*arguments)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    del result
    return peak / 2**20


def test_the_features_of_many_candidates_stay_within_the_budget():
    rows = np.random.default_rng(0).random((500, 128)) / 12
    # Without a limit, the features of all candidates take 39 MiB.
    candidates = np.random.default_rng(0).integers(0, 500, (100, 400))
    with sklearn.config_context(working_memory=8):
        peak = measure_peak(similarities, rows[:100], Samples(rows), candidates)
    assert peak < 8


def test_the_arrays_of_many_candidates_stay_within_the_budget():
    rows = np.random.default_rng(0).random((4000, 2)).astype(np.float32)
    given = np.tile(np.arange(4000), (256, 1))
    queries = Samples(rows[:256])
    with sklearn.config_context(working_memory=8):
        peak = measure_peak(
            find_nearest_candidates,
            GivenCandidates(given),
            Samples(rows),
            queries,
            1000,
            lambda k: 1 - k,
            None,
        )
    assert peak < 8 + 2 * 256 * 1000 * 8 / 2**20


def test_slices_of_wide_features_fit_in_the_budget():
    rows = Samples(np.full((40, 2000), 0.01))
    with sklearn.config_context(working_memory=1):
        parts = [(part, block.shape) for part, block in iterate_features(rows)]
    # A quarter of the budget, at 20 bytes for each feature.
    assert {shape[0] for _, shape in parts} <= {2**18 // (20 * 2000), 40 % 6}
    assert parts[-1][0].stop == 40


@pytest.mark.parametrize(
    "given", [[8, 2, 8, 2, 5, -1, 9], [-1] * 7, [0, 0, 0, 0, 0, 0, -1]], ids=str
)
@pytest.mark.parametrize("left_out", [True, False])
def test_duplicates_missing_candidates_and_the_query_are_never_neighbours(
    features, given, left_out
):
    rows = features[:10]
    own = np.array([2]) if left_out else None
    distances, indices = find_nearest_candidates(
        GivenCandidates([given]), Samples(rows), Samples(rows[2:3]), 2, lambda k: 1 - k, own
    )
    exact = 1 - rows @ rows[2]
    allowed = set(range(10)) - ({2} if left_out else set())
    # Three candidates per neighbour are used, and one more if the query is left out. With fewer
    # than two usable ones, all rows are compared.
    usable = allowed & set(given[: 6 + left_out])
    nearest = sorted(usable if len(usable) >= 2 else allowed, key=lambda row: exact[row])[:2]
    assert indices[0].tolist() == nearest
    np.testing.assert_allclose(distances[0], exact[nearest], atol=1e-6)
