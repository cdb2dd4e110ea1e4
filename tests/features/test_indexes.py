"""Approximate neighbours: most of the nearest, at their right distances."""

import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from sknetsim import FeatureStore, GradientFeaturizer, NetworkNeighbors, featurize

SAMPLES = 2000


def package_of(algorithm):
    return pytest.importorskip(algorithm)


# The first use compiles pynndescent, for a minute or more.
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


def neighbors(algorithm, estimator="features", **settings):
    package_of(algorithm)
    return NetworkNeighbors(
        estimator, algorithm=algorithm, n_neighbors=10, random_state=0, **settings
    )


def recall(found, expected):
    return (expected[:, :, None] == found[:, None]).any(axis=2).mean()


@algorithms
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_most_of_the_nearest_are_found_at_their_distances(features, algorithm, distance):
    found = neighbors(algorithm, distance=distance).fit(features)
    exact = NetworkNeighbors("features", n_neighbors=10, distance=distance).fit(features)
    queries = features[::7] * 0.9
    distances, indices = found.kneighbors(queries)
    expected, truly = exact.kneighbors(queries)
    assert recall(indices, truly) > 0.9
    assert found.recall_ == pytest.approx(recall(indices, truly), abs=0.05)
    same = indices == truly
    np.testing.assert_allclose(distances[same], expected[same], atol=1e-6)
    assert (np.diff(distances, axis=1) >= 0).all()


@algorithms
def test_no_row_is_its_own_neighbour(features, algorithm):
    distances, indices = neighbors(algorithm).fit(features).kneighbors()
    _, truly = NetworkNeighbors("features", n_neighbors=10).fit(features).kneighbors()
    assert (indices != np.arange(SAMPLES)[:, None]).all() and np.isfinite(distances).all()
    assert recall(indices, truly) > 0.9


@algorithms
def test_candidates_are_put_in_the_order_of_the_network(data, algorithm):
    network, X = data
    found = neighbors(algorithm, network, n_components=32, n_candidates=60).fit(X)
    distances, indices = found.kneighbors(X[:50] + 0.01)
    expected, truly = NetworkNeighbors(network, n_neighbors=10).fit(X).kneighbors(X[:50] + 0.01)
    assert recall(indices, truly) > 0.9
    same = indices == truly
    np.testing.assert_allclose(distances[same], expected[same], atol=1e-9)


@algorithms
def test_the_index_is_saved_with_the_estimator(features, algorithm, monkeypatch):
    estimator = neighbors(algorithm).fit(features)
    twin = pickle.loads(pickle.dumps(estimator))
    monkeypatch.setattr("sknetsim._features.indexes.fit_index", None)
    np.testing.assert_array_equal(
        twin.kneighbors(features[:50])[1], estimator.kneighbors(features[:50])[1]
    )


@algorithms
def test_an_index_of_a_store(data, features, tmp_path, algorithm):
    network, X = data
    featurizer = GradientFeaturizer(network, n_components=32, random_state=0).fit(X)
    store = featurize(featurizer, X, tmp_path / "store")
    found = neighbors(algorithm).fit(store)
    expected = neighbors(algorithm).fit(features)
    assert isinstance(found._references.data, FeatureStore)
    assert recall(found.kneighbors(store)[1], expected.kneighbors(features)[1]) > 0.9


@algorithms
@pytest.mark.parametrize("count", [2, 3, 12])
def test_few_rows_are_all_found(features, algorithm, count):
    few = features[:count]
    found = neighbors(algorithm).fit(few)
    exact = NetworkNeighbors("features").fit(few)
    for queries, wanted in ((few, count), (None, count - 1)):
        np.testing.assert_array_equal(
            found.kneighbors(queries, wanted)[1], exact.kneighbors(queries, wanted)[1]
        )


@algorithms
@pytest.mark.parametrize("queries", [None, slice(0, 30)], ids=["fitted", "others"])
def test_clusters_of_near_rows_are_found_once_each(algorithm, queries):
    generator = np.random.default_rng(0)
    rows = np.repeat(generator.standard_normal((8, 16)), 100, axis=0)
    rows += 0.05 * generator.standard_normal(rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    asked = None if queries is None else rows[queries]
    distances, indices = neighbors(algorithm).fit(rows).kneighbors(asked, 150)
    assert all(len(set(found)) == 150 for found in indices.tolist())
    assert queries is not None or (indices != np.arange(800)[:, None]).all()
    assert np.isfinite(distances).all() and (np.diff(distances, axis=1) >= 0).all()


def test_rows_that_are_as_near_are_as_good(features):
    rows = np.repeat(features[:60], 20, axis=0)
    assert neighbors("faiss").fit(rows).recall_ > 0.98


def test_what_is_no_feature_is_refused(features):
    with pytest.raises(ValueError, match="rows of length up to"):
        neighbors("faiss").fit(features).kneighbors(100 * features[:2])


def test_an_index_of_a_dataset_of_features(features):
    rows = TensorDataset(torch.as_tensor(features), torch.zeros(SAMPLES))
    found = neighbors("faiss").fit(rows).kneighbors(features[:9])[1]
    expected = neighbors("faiss").fit(features).kneighbors(features[:9])[1]
    np.testing.assert_array_equal(found, expected)


def test_more_lists_are_read_where_they_are_short(features):
    estimator = neighbors("faiss").fit(features)
    distances, indices = estimator.kneighbors(features[:5], 900)
    assert np.isfinite(distances).all()
    assert all(len(set(row)) == 900 for row in indices.tolist())


def test_brute_force_finds_all(features):
    assert NetworkNeighbors("features").fit(features).recall_ == 1


def test_gradients_have_no_index(data):
    network, X = data
    with pytest.raises(ValueError, match=r"n_components.* got None with algorithm='faiss'"):
        neighbors("faiss", network).fit(X)


def test_other_algorithms_are_refused(features):
    with pytest.raises(ValueError, match="'algorithm' parameter"):
        NetworkNeighbors("features", algorithm="guess").fit(features)


@pytest.mark.parametrize("algorithm", ["faiss", "pynndescent"])
def test_a_missing_package_is_told(features, monkeypatch, algorithm):
    monkeypatch.setitem(sys.modules, algorithm, None)
    with pytest.raises(ImportError, match=r"must be 'brute' .*sknetsim\[neighbors\]"):
        NetworkNeighbors("features", algorithm=algorithm).fit(features)
