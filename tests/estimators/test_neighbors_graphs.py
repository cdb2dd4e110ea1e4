"""Sparse graphs of neighbours, and scikit-learn's estimators that accept them."""

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


def make_graph(network, X, **params):
    return NetworkNeighbors(network, **params).fit(X).transform(X)


@modes
def test_the_graph_equals_that_of_kneighborstransformer_on_features(data, mode):
    """scikit-learn squares differences, so small distances differ by rounding."""
    network, X, _, features = data
    actual = make_graph(network, X, mode=mode, n_neighbors=4)
    expected = KNeighborsTransformer(mode=mode, n_neighbors=4).fit_transform(features)
    assert isinstance(actual, csr_matrix)
    assert actual.nnz == expected.nnz
    np.testing.assert_allclose(actual.toarray(), expected.toarray(), atol=1e-6)


def test_rows_are_sorted_and_no_distance_is_negative(data):
    network, X, *_ = data
    actual = make_graph(network, X, n_neighbors=5)
    values = actual.data.reshape(60, 6)
    assert (np.diff(values, axis=1) >= 0).all()
    assert (values >= 0).all()
    assert (values[:, 0] == 0).all()


def test_columns_of_the_graph_have_names(data):
    network, X, *_ = data
    names = NetworkNeighbors(network).fit(X).get_feature_names_out()
    assert names[0] == "networkneighbors0"
    assert len(names) == 60


def test_the_graph_of_fitted_samples_stores_duplicates_as_zeros(data):
    """cleanlab accepts this form as ``knn_graph``."""
    network, X, *_ = data
    actual = NetworkNeighbors(network, n_neighbors=4).fit(X).kneighbors_graph(mode="distance")
    assert np.diff(actual.indptr).tolist() == [4] * 60
    assert actual[3, 7] == 0
    assert 7 in actual[3].indices
    rows = np.repeat(np.arange(60), 4)
    assert (rows != actual.indices).all()
    assert (np.diff(actual.data.reshape(60, 4), axis=1) >= 0).all()


@pytest.mark.parametrize("machine", [KNeighborsClassifier, KNeighborsRegressor])
def test_neighbour_estimators_accept_the_graph(data, machine):
    network, X, y, features = data
    piped = make_pipeline(
        NetworkNeighbors(network, n_neighbors=9), machine(n_neighbors=3, metric="precomputed")
    )
    actual = piped.fit(X[:40], y[:40]).predict(X[40:])
    expected = machine(n_neighbors=3).fit(features[:40], y[:40]).predict(features[40:])
    np.testing.assert_allclose(actual, expected)
    grid = {f"{machine.__name__.lower()}__n_neighbors": [1, 3, 5]}
    search = GridSearchCV(piped, grid, cv=3).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_dbscan_accepts_the_graph(data):
    network, X, _, features = data
    actual = DBSCAN(eps=0.5, min_samples=3, metric="precomputed").fit_predict(
        make_graph(network, X, n_neighbors=30)
    )
    np.testing.assert_array_equal(actual, DBSCAN(eps=0.5, min_samples=3).fit_predict(features))


def test_tsne_accepts_the_graph(data):
    network, X, *_ = data
    embedding = TSNE(metric="precomputed", init="random", perplexity=5, random_state=0)
    assert embedding.fit_transform(make_graph(network, X, n_neighbors=18)).shape == (60, 2)


def test_spectral_clustering_accepts_the_graph(data):
    network, X, *_ = data
    clustering = SpectralClustering(
        2, affinity="precomputed_nearest_neighbors", n_neighbors=10, random_state=0
    )
    labels = clustering.fit_predict(make_graph(network, X, n_neighbors=10))
    assert set(labels) == {0, 1}


def test_more_neighbors_than_samples_raise_an_error(data):
    network, X, *_ = data
    with pytest.raises(
        ValueError, match=r"`n_neighbors` must be an integer between 1 and 59 .*; got 60"
    ):
        make_graph(network, X, n_neighbors=60)
    assert make_graph(network, X, n_neighbors=60, mode="connectivity").nnz == 3600


def test_an_invalid_mode_raises_an_error(data):
    network, X, *_ = data
    with pytest.raises(ValueError, match="'mode' parameter"):
        NetworkNeighbors(network, mode="similarity").fit(X)
