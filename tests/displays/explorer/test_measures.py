"""Measures on the page: equal to those of the estimators."""

import numpy as np
import pytest

from sknetsim import LabelDenoiser, NetworkDensity, NetworkKernel, NetworkNeighbors, explore
from sknetsim.displays.explorer._measures import _sort_by_similarity

from .pages import read_data

WEIGHTS = {"method": "power", "alpha": 16.0}


def test_the_page_shows_the_results_of_the_estimators(images, tmp_path):
    network, X, y = images
    data = read_data(explore(network, X, y, tmp_path / "page.html", n_neighbors=4))
    neighbors = NetworkNeighbors(network, n_neighbors=4).fit(X)
    _, indices = neighbors.kneighbors()
    density = NetworkDensity(network, **WEIGHTS).fit(X)
    denoiser = LabelDenoiser(network, **WEIGHTS).fit(X, y)
    parts = NetworkKernel(network).contributions(X[[7] * 4], X[indices[7]])
    predictions = network(X).argmax(dim=1).tolist()
    assert data["neighbors"] == indices.tolist()
    np.testing.assert_allclose(data["similarities"][7], parts.similarity, atol=1e-4)
    np.testing.assert_allclose(
        data["contributions"][7], np.stack(list(parts.by_layer().values()), axis=1), atol=1e-4
    )
    assert data["layers"] == ["1", "3"]
    expected = {
        "density": density.score_samples(X),
        "reliability": density.reliability(X),
        "quality": denoiser.label_quality(X, y),
    }
    assert list(data["scores"]) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(data["scores"][name], values, atol=1e-4)
    assert data["texts"] == {
        "label": [str(label) for label in y],
        "prediction": [str(label) for label in predictions],
    }
    assert data["mismatches"] == [str(a) != str(b) for a, b in zip(y, predictions, strict=True)]


def test_an_untrained_network_is_trained_once(tmp_path):
    X = np.random.default_rng(0).random((30, 2))
    data = read_data(explore(None, X, X[:, 0], tmp_path / "page.html", random_state=0))
    network = NetworkNeighbors(random_state=0).fit(X, X[:, 0]).estimator_
    expected = NetworkDensity(network, **WEIGHTS).fit(X).score_samples(X)
    np.testing.assert_allclose(data["scores"]["density"], expected, atol=1e-4)


@pytest.mark.parametrize("estimator", ["features", "landmarks"])
def test_features_give_exact_similarities(estimator, tmp_path, images):
    network, X, y = images
    path = tmp_path / "page.html"
    if estimator == "features":
        X = np.random.default_rng(0).random((40, 3))
        X /= np.linalg.norm(X, axis=1)[:, None]
        data = read_data(explore("features", X, y, path))
    else:
        data = read_data(explore(network, X, y, path, n_components=20, random_state=0))
        gram = NetworkKernel(network)(X)
        near = np.take_along_axis(gram, np.array(data["neighbors"]), axis=1)
        np.testing.assert_allclose(data["similarities"], near, atol=1e-4)
    np.testing.assert_allclose(
        np.sum(data["contributions"], axis=2), data["similarities"], atol=1e-3
    )
    assert (np.diff(data["similarities"], axis=1) <= 1e-4).all()


def test_neighbours_are_sorted_by_their_exact_similarity():
    indices = np.array([[4, 7, 2]])
    contributions = np.array([[[0.1, 0.2], [0.5, 0.4], [0.7, -0.1]]])
    neighbors, similarities, sorted_contributions = _sort_by_similarity(indices, contributions)
    assert neighbors.tolist() == [[7, 2, 4]]
    np.testing.assert_allclose(similarities, [[0.9, 0.6, 0.3]])
    np.testing.assert_array_equal(sorted_contributions[0], contributions[0, [1, 2, 0]])


def test_equal_similarities_keep_their_order_despite_rounding():
    contributions = np.array([[[0.5], [0.5 + 1e-9]]])
    assert _sort_by_similarity(np.array([[3, 1]]), contributions)[0].tolist() == [[3, 1]]
