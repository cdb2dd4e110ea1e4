"""The graph of neighbours, and those who take it."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.cluster import DBSCAN, SpectralClustering
from sklearn.manifold import TSNE
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, KNeighborsTransformer
from sklearn.pipeline import make_pipeline

from sknetsim import GradientFeaturizer, NetworkNeighbors

from ..cases import NETWORKS, build

modes = pytest.mark.parametrize("mode", ["distance", "connectivity"])


@pytest.fixture(scope="module")
def data():
    network, X = build(NETWORKS[0], n_samples=60)
    X = X.numpy()
    X[7] = X[3]  # A duplicate.
    return network, X, (X[:, 0] > 0).astype(int), GradientFeaturizer(network).fit_transform(X)


def graph(network, X, **params):
    return NetworkNeighbors(network, **params).fit(X).transform(X)


@modes
def test_it_is_scikit_learns_graph_of_the_features(data, mode):
    """That one squares differences, so that small distances differ by rounding."""
    network, X, _, features = data
    found = graph(network, X, mode=mode, n_neighbors=4)
    expected = KNeighborsTransformer(mode=mode, n_neighbors=4).fit_transform(features)
    assert isinstance(found, csr_matrix)
    assert found.nnz == expected.nnz
    np.testing.assert_allclose(found.toarray(), expected.toarray(), atol=1e-6)


def test_rows_are_sorted_and_no_distance_is_negative(data):
    network, X, *_ = data
    found = graph(network, X, n_neighbors=5)
    values = found.data.reshape(60, 6)
    assert (np.diff(values, axis=1) >= 0).all()
    assert (values >= 0).all()
    assert (values[:, 0] == 0).all()


def test_names_of_its_columns(data):
    network, X, *_ = data
    names = NetworkNeighbors(network).fit(X).get_feature_names_out()
    assert names[0] == "networkneighbors0"
    assert len(names) == 60


def test_a_graph_without_the_rows_themselves_stores_duplicates_as_zeros(data):
    """The form that cleanlab takes as ``knn_graph``."""
    network, X, *_ = data
    found = NetworkNeighbors(network, n_neighbors=4).fit(X).kneighbors_graph(mode="distance")
    assert np.diff(found.indptr).tolist() == [4] * 60
    assert found[3, 7] == 0
    assert 7 in found[3].indices
    rows = np.repeat(np.arange(60), 4)
    assert (rows != found.indices).all()
    assert (np.diff(found.data.reshape(60, 4), axis=1) >= 0).all()


@pytest.mark.parametrize("machine", [KNeighborsClassifier, KNeighborsRegressor])
def test_into_neighbour_machines(data, machine):
    network, X, y, features = data
    piped = make_pipeline(
        NetworkNeighbors(network, n_neighbors=9), machine(n_neighbors=3, metric="precomputed")
    )
    found = piped.fit(X[:40], y[:40]).predict(X[40:])
    expected = machine(n_neighbors=3).fit(features[:40], y[:40]).predict(features[40:])
    np.testing.assert_allclose(found, expected)
    grid = {f"{machine.__name__.lower()}__n_neighbors": [1, 3, 5]}
    search = GridSearchCV(piped, grid, cv=3).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_into_dbscan(data):
    network, X, _, features = data
    found = DBSCAN(eps=0.5, min_samples=3, metric="precomputed").fit_predict(
        graph(network, X, n_neighbors=30)
    )
    np.testing.assert_array_equal(found, DBSCAN(eps=0.5, min_samples=3).fit_predict(features))


def test_into_tsne(data):
    network, X, *_ = data
    embedding = TSNE(metric="precomputed", init="random", perplexity=5, random_state=0)
    assert embedding.fit_transform(graph(network, X, n_neighbors=18)).shape == (60, 2)


def test_into_spectral_clustering(data):
    network, X, *_ = data
    clustering = SpectralClustering(
        2, affinity="precomputed_nearest_neighbors", n_neighbors=10, random_state=0
    )
    labels = clustering.fit_predict(graph(network, X, n_neighbors=10))
    assert set(labels) == {0, 1}


def test_more_neighbors_than_rows_are_refused(data):
    network, X, *_ = data
    with pytest.raises(
        ValueError, match=r"`n_neighbors` must be an integer between 1 and 59 .*; got 60"
    ):
        graph(network, X, n_neighbors=60)
    assert graph(network, X, n_neighbors=60, mode="connectivity").nnz == 3600


def test_a_bad_mode_is_refused(data):
    network, X, *_ = data
    with pytest.raises(ValueError, match="'mode' parameter"):
        NetworkNeighbors(network, mode="similarity").fit(X)
