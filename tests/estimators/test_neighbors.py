"""NetworkNeighbors compared with sorted rows of the gram matrix."""

import pickle

import numpy as np
import pytest
import torch
from scipy.sparse import issparse
from sklearn.base import clone
from torch import nn

from sknetsim import GradientFeaturizer, NetworkKernel, NetworkNeighbors
from sknetsim.exceptions import FewerComponentsWarning

from ..cases import NETWORKS, build

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
def test_neighbors_are_the_sorted_gram_matrix(data, distance, batch_size):
    network, X = data
    neighbors = NetworkNeighbors(network, distance=distance, batch_size=batch_size).fit(X[:15])
    actual, indices = neighbors.kneighbors(X[15:], n_neighbors=4)
    expected = DISTANCES[distance](NetworkKernel(network)(X[15:], X[:15]))
    np.testing.assert_allclose(actual, np.sort(expected, axis=1)[:, :4], atol=1e-7)
    np.testing.assert_allclose(np.take_along_axis(expected, indices, axis=1), actual, atol=1e-7)


def test_fitted_samples_are_not_their_own_neighbors(data):
    network, X = data
    neighbors = NetworkNeighbors(network, n_neighbors=19).fit(X)
    actual, indices = neighbors.kneighbors()
    assert all(row not in others for row, others in enumerate(indices))
    assert np.isfinite(actual).all()
    assert sorted(indices[0]) == list(range(1, 20))


def test_a_fitted_sample_as_a_query_is_its_own_first_neighbor(data):
    network, X = data
    actual, indices = NetworkNeighbors(network, n_neighbors=1).fit(X).kneighbors(X)
    assert indices[:, 0].tolist() == list(range(20))
    np.testing.assert_allclose(actual, 0, atol=1e-6)


@distances
def test_radius_neighbors_are_all_samples_within_the_radius(data, distance):
    network, X = data
    neighbors = NetworkNeighbors(network, distance=distance, radius=0.9, batch_size=4).fit(X[:15])
    actual, indices = neighbors.radius_neighbors(X[15:])
    expected = DISTANCES[distance](NetworkKernel(network)(X[15:], X[:15]))
    for row in range(5):
        assert set(indices[row]) == set(np.flatnonzero(expected[row] <= 0.9))
        np.testing.assert_allclose(actual[row], np.sort(expected[row][indices[row]]), atol=1e-7)


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
def test_the_graph_contains_the_neighbors(data, mode):
    network, X = data
    neighbors = NetworkNeighbors(network, n_neighbors=3).fit(X)
    graph = neighbors.kneighbors_graph(mode=mode)
    actual, indices = neighbors.kneighbors()
    assert issparse(graph)
    assert graph.shape == (20, 20)
    assert (graph.indices.reshape(20, 3) == indices).all()
    values = np.ones_like(actual) if mode == "connectivity" else actual
    np.testing.assert_array_equal(graph.data.reshape(20, 3), values)


def test_a_sample_has_distance_zero_to_itself_in_float32():
    network, X = build(NETWORKS[0], n_samples=20, dtype=torch.float32)
    actual = NetworkNeighbors(network).fit(X).radius_neighbors(X, radius=0, return_distance=False)
    assert all(row in others for row, others in enumerate(actual))


def test_indices_alone_are_returned_without_distances(data):
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
            "`n_neighbors` must be an integer between 1 and 19 .*; got 20. Ask",
        ),
        (lambda n: n.kneighbors(n_neighbors=0), "`n_neighbors` must be .*; got 0"),
        (lambda n: n.kneighbors(n_neighbors=1.5), "`n_neighbors` must be .*; got 1.5"),
        (
            lambda n: n.radius_neighbors(radius=2.5),
            "`radius` must be a number between 0 and 2 .*; got 2.5. Set",
        ),
        (
            lambda n: n.kneighbors_graph(mode="both"),
            "`mode` must be one of 'distance', 'connectivity'; got 'both'. Use",
        ),
    ],
)
def test_invalid_arguments_raise_an_error(data, call, message):
    network, X = data
    with pytest.raises(ValueError, match=message):
        call(NetworkNeighbors(network).fit(X))


@pytest.mark.parametrize(
    "call",
    [
        lambda n, X: n.kneighbors(),
        lambda n, X: n.kneighbors_graph(n_neighbors=1),
        lambda n, X: n.transform(X),
    ],
)
def test_a_single_fitted_sample_has_no_other_neighbours(data, call):
    network, X = data
    with pytest.raises(ValueError, match="got a single fitted sample, which has no other"):
        call(NetworkNeighbors(network).fit(X[:1]), X)


def test_a_single_fitted_sample_is_the_only_neighbour_of_queries(data):
    network, X = data
    neighbors = NetworkNeighbors(network).fit(X[:1])
    assert neighbors.kneighbors(X[:3], 1)[1].tolist() == [[0], [0], [0]]
    assert [len(near) for near in neighbors.radius_neighbors()[0]] == [0]
    with pytest.raises(ValueError, match=r"`n_neighbors` must be 1 \(the number .*; got 2"):
        neighbors.kneighbors(X[:3], 2)


def make_neighbors(network, n_components=4, **params):
    return NetworkNeighbors(network, n_components=n_components, random_state=0, **params)


@distances
@pytest.mark.parametrize("queries", [None, slice(15, 20)])
def test_all_samples_as_candidates_give_the_exact_neighbors(data, distance, queries):
    network, X = data
    rows = None if queries is None else X[queries]
    exact = NetworkNeighbors(network, distance=distance).fit(X[:15]).kneighbors(rows)
    neighbors = make_neighbors(network, distance=distance, n_candidates=15).fit(X[:15])
    actual, indices = neighbors.kneighbors(rows)
    np.testing.assert_array_equal(indices, exact[1])
    np.testing.assert_allclose(actual, exact[0], atol=1e-7)


def test_duplicates_among_candidates_keep_the_order_of_the_samples():
    network, X = build(NETWORKS[0], n_samples=6, dtype=torch.float32)
    X = torch.cat([X, X, X])
    exact = NetworkNeighbors(network, n_neighbors=3).fit(X).kneighbors(X)
    actual = make_neighbors(network, n_neighbors=3, n_candidates=18).fit(X).kneighbors(X)
    np.testing.assert_array_equal(actual[1], exact[1])
    np.testing.assert_array_equal(actual[0], 0)


def compute_recall(actual, expected):
    """Return the share of the expected neighbours that were found, over all queries."""
    pairs = zip(actual, expected, strict=True)
    return np.mean([len(set(row) & set(others)) / len(others) for row, others in pairs])


def test_more_candidates_find_no_fewer_exact_neighbors():
    network, X = build(NETWORKS[0], n_samples=120)
    exact = NetworkNeighbors(network).fit(X).kneighbors(return_distance=False)
    recalls = [
        compute_recall(
            make_neighbors(network, 3, n_candidates=count).fit(X).kneighbors(return_distance=False),
            exact,
        )
        for count in (5, 10, 20, 40, 80, 119)
    ]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1


def test_candidates_have_their_exact_distances(data):
    network, X = data
    actual, indices = make_neighbors(network, 2, n_candidates=7).fit(X[:15]).kneighbors(X[15:])
    exact = DISTANCES["euclidean"](NetworkKernel(network)(X[15:], X[:15]))
    np.testing.assert_allclose(actual, np.take_along_axis(exact, indices, axis=1), atol=1e-7)
    assert (np.diff(actual, axis=1) >= 0).all()


def test_there_are_at_least_as_many_candidates_as_neighbors(data):
    network, X = data
    neighbors = make_neighbors(network, n_candidates=1, n_neighbors=6).fit(X)
    assert neighbors.kneighbors()[1].shape == (20, 6)


@distances
@pytest.mark.parametrize("queries", [None, slice(10, 20)])
def test_without_candidates_neighbors_are_those_of_the_features(data, distance, queries):
    network, X = data
    neighbors = make_neighbors(network, distance=distance).fit(X)
    actual, indices = neighbors.kneighbors(None if queries is None else X[queries])
    features = GradientFeaturizer(network, n_components=4, random_state=0).fit_transform(X)
    expected = DISTANCES[distance](features[queries or slice(None)] @ features.T)
    if queries is None:
        np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(actual, np.sort(expected, axis=1)[:, :5], atol=1e-7)
    np.testing.assert_allclose(np.take_along_axis(expected, indices, axis=1), actual, atol=1e-7)


def test_radius_neighbors_are_those_of_the_features(data):
    network, X = data
    actual = make_neighbors(network, radius=0.9).fit(X).radius_neighbors(return_distance=False)
    features = GradientFeaturizer(network, n_components=4, random_state=0).fit_transform(X)
    near = DISTANCES["euclidean"](features @ features.T) <= 0.9
    np.fill_diagonal(near, False)
    assert [set(row) for row in actual] == [set(np.flatnonzero(row)) for row in near]


@pytest.mark.parametrize("n_candidates", [None, 8])
def test_fitted_samples_are_not_their_own_neighbors_by_features(data, n_candidates):
    network, X = data
    neighbors = make_neighbors(network, n_candidates=n_candidates, n_neighbors=19).fit(X)
    actual, indices = neighbors.kneighbors()
    assert all(sorted({*others, row}) == list(range(20)) for row, others in enumerate(indices))
    assert np.isfinite(actual).all()


def test_kernel_error_is_that_of_the_featurizer(data):
    network, X = data
    featurizer = GradientFeaturizer(network, n_components=4, random_state=0).fit(X)
    assert make_neighbors(network).fit(X).kernel_error_ == featurizer.kernel_error_ > 0


def test_kernel_error_is_zero_without_features(data):
    network, X = data
    neighbors = make_neighbors(network).fit(X)
    assert neighbors.set_params(n_components=None).fit(X).kernel_error_ == 0


def test_fitted_again_without_features_neighbors_are_exact(data):
    network, X = data
    expected = NetworkNeighbors(network).fit(X).kneighbors(X)
    neighbors = make_neighbors(network, 2).fit(X).set_params(n_components=None).fit(X)
    np.testing.assert_array_equal(neighbors.kneighbors(X), expected)


@pytest.mark.parametrize("copied", [clone, lambda fitted: pickle.loads(pickle.dumps(fitted))])
def test_copies_find_the_same_neighbors_by_features(data, copied):
    network, X = data
    neighbors = make_neighbors(network, n_candidates=8).fit(X)
    expected, again = neighbors.kneighbors(), copied(neighbors)
    if not hasattr(again, "n_samples_fit_"):
        again.fit(X)
    np.testing.assert_array_equal(again.kneighbors(), expected)


@pytest.mark.parametrize("n_candidates", [None, 8])
def test_datasets_and_dicts_have_the_neighbors_of_their_samples(data, n_candidates):
    network, X = data
    expected = make_neighbors(network, n_candidates=n_candidates).fit(X).kneighbors(X[:4])
    for wrap in (torch.utils.data.TensorDataset, lambda rows: {"input": rows}):
        neighbors = make_neighbors(network, n_candidates=n_candidates).fit(wrap(X))
        actual = neighbors.kneighbors(wrap(X[:4]))
        np.testing.assert_array_equal(actual[1], expected[1])
        np.testing.assert_allclose(actual[0], expected[0], atol=1e-7)


@pytest.mark.parametrize("n_candidates", [None, 8])
def test_samples_with_zero_gradients_have_neighbors_at_finite_distances(n_candidates):
    network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    network[0].weight.data.uniform_(0.5, 1.5)
    X = torch.rand(15, 2) + 0.1
    X[5:8] *= -1
    with pytest.warns(UserWarning, match="samples have a zero gradient"):
        actual, _ = make_neighbors(network, 2, n_candidates=n_candidates).fit(X).kneighbors(X)
    np.testing.assert_allclose(actual[5:8], np.sqrt(2), rtol=1e-6)
    assert np.isfinite(actual).all()


def test_a_warning_reports_fewer_features_than_requested(data):
    network, X = data
    with pytest.warns(FewerComponentsWarning, match="`n_components` is 4, but .* rank 1,"):
        make_neighbors(network).fit(torch.cat([X[:1]] * 10))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 0}, "'n_components' parameter .* Got 0 instead"),
        ({"n_components": "auto"}, "'n_components' parameter .* Got 'auto' instead"),
        ({"n_components": 21}, "`n_components` must be an integer between 1 and 20 .*; got 21"),
        ({"n_candidates": 0}, "'n_candidates' parameter .* Got 0 instead"),
        ({"n_candidates": 2.5}, "'n_candidates' parameter .* Got 2.5 instead"),
    ],
    ids=str,
)
def test_invalid_parameters_raise_an_error(data, params, message):
    network, X = data
    with pytest.raises(ValueError, match=message):
        NetworkNeighbors(network, **params).fit(X)
