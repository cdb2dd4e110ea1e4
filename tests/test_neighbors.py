"""NetworkNeighbors against sorting the rows of the gram matrix."""

import numpy as np
import pytest
import torch
from scipy.sparse import issparse

from sknetsim import NetworkKernel, NetworkNeighbors

from .cases import NETWORKS, build

DISTANCES = {
    "euclidean": lambda k: np.sqrt(np.clip(2 - 2 * k, 0, None)),
    "cosine": lambda k: np.clip(1 - k, 0, None),
}
distances = pytest.mark.parametrize("distance", DISTANCES)


@pytest.fixture
def data():
    return build(NETWORKS[10], n_samples=20)


@distances
@pytest.mark.parametrize("batch_size", [None, 3])
def test_neighbors_are_the_sorted_gram(data, distance, batch_size):
    network, X = data
    neighbors = NetworkNeighbors(network, distance=distance, batch_size=batch_size).fit(X[:15])
    found, indices = neighbors.kneighbors(X[15:], n_neighbors=4)
    expected = DISTANCES[distance](NetworkKernel(network)(X[15:], X[:15]))
    np.testing.assert_allclose(found, np.sort(expected, axis=1)[:, :4], atol=1e-7)
    np.testing.assert_allclose(np.take_along_axis(expected, indices, axis=1), found, atol=1e-7)


def test_fitted_rows_are_not_their_own_neighbors(data):
    network, X = data
    neighbors = NetworkNeighbors(network, n_neighbors=19).fit(X)
    found, indices = neighbors.kneighbors()
    assert all(row not in others for row, others in enumerate(indices))
    assert np.isfinite(found).all()
    assert sorted(indices[0]) == list(range(1, 20))


def test_a_fitted_row_is_its_own_first_neighbor_as_a_query(data):
    network, X = data
    found, indices = NetworkNeighbors(network, n_neighbors=1).fit(X).kneighbors(X)
    assert indices[:, 0].tolist() == list(range(20))
    np.testing.assert_allclose(found, 0, atol=1e-6)


@distances
def test_radius_neighbors_are_all_within(data, distance):
    network, X = data
    neighbors = NetworkNeighbors(network, distance=distance, radius=0.9, batch_size=4).fit(X[:15])
    found, indices = neighbors.radius_neighbors(X[15:])
    expected = DISTANCES[distance](NetworkKernel(network)(X[15:], X[:15]))
    for row in range(5):
        assert set(indices[row]) == set(np.flatnonzero(expected[row] <= 0.9))
        np.testing.assert_allclose(found[row], np.sort(expected[row][indices[row]]), atol=1e-7)


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
def test_graph_holds_the_neighbors(data, mode):
    network, X = data
    neighbors = NetworkNeighbors(network, n_neighbors=3).fit(X)
    graph = neighbors.kneighbors_graph(mode=mode)
    found, indices = neighbors.kneighbors()
    assert issparse(graph)
    assert graph.shape == (20, 20)
    assert (graph.indices.reshape(20, 3) == indices).all()
    values = np.ones_like(found) if mode == "connectivity" else found
    np.testing.assert_array_equal(graph.data.reshape(20, 3), values)


def test_a_row_is_at_distance_zero_of_itself_in_float32():
    network, X = build(NETWORKS[0], n_samples=20, dtype=torch.float32)
    found = NetworkNeighbors(network).fit(X).radius_neighbors(X, radius=0, return_distance=False)
    assert all(row in others for row, others in enumerate(found))


def test_without_distances(data):
    network, X = data
    neighbors = NetworkNeighbors(network).fit(X)
    np.testing.assert_array_equal(
        neighbors.kneighbors(return_distance=False), neighbors.kneighbors()[1]
    )
    assert neighbors.radius_neighbors(return_distance=False).shape == (20,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda n: n.kneighbors(n_neighbors=20),
            "n_neighbors is 20; allowed are integers from 1 to 19",
        ),
        (lambda n: n.kneighbors(n_neighbors=0), "n_neighbors is 0"),
        (lambda n: n.kneighbors(n_neighbors=1.5), "n_neighbors is 1.5"),
        (
            lambda n: n.radius_neighbors(radius=2.5),
            "radius is 2.5; allowed are numbers from 0 to 2",
        ),
        (lambda n: n.kneighbors_graph(mode="both"), "mode is 'both'; allowed are"),
    ],
)
def test_bad_arguments(data, call, message):
    network, X = data
    with pytest.raises(ValueError, match=message):
        call(NetworkNeighbors(network).fit(X))
