"""GradientFeaturizer beyond the exact features of test_gradients."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim import (
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
)
from sknetsim.exceptions import FewerComponentsWarning

from ..cases import NETWORKS, build


@pytest.fixture
def data():
    return build(NETWORKS[0], n_samples=15)


def test_landmarks_reproduce_the_kernel_between_themselves(data):
    network, X = data
    features = GradientFeaturizer(network, n_components=15, random_state=0).fit_transform(X)
    np.testing.assert_allclose(features @ features.T, NetworkKernel(network)(X), atol=1e-6)


def test_fewer_landmarks_project(data):
    network, X = data
    features = GradientFeaturizer(network, n_components=5, random_state=0).fit_transform(X)
    error = NetworkKernel(network)(X) - features @ features.T
    assert features.shape == (15, 5)
    assert np.linalg.eigvalsh(error).min() > -1e-8
    assert (np.linalg.norm(features, axis=1) <= 1 + 1e-8).all()


def test_landmarks_follow_the_seed(data):
    network, X = data
    featurizer = GradientFeaturizer(network, n_components=5, random_state=0)
    first = featurizer.fit_transform(X)
    np.testing.assert_array_equal(first, clone(featurizer).fit_transform(X))
    assert not np.allclose(first, featurizer.set_params(random_state=1).fit_transform(X))


def test_more_landmarks_than_rows_are_refused(data):
    network, X = data
    with pytest.raises(ValueError, match="n_components is 16; allowed are integers from 1 to 15"):
        GradientFeaturizer(network, n_components=16).fit(X)


def test_duplicate_landmarks_give_no_nan(data):
    network, X = data
    X = torch.cat([X[:1]] * 6 + [X])
    features = GradientFeaturizer(network, n_components=21, random_state=0).fit_transform(X)
    np.testing.assert_allclose(features @ features.T, NetworkKernel(network)(X), atol=1e-5)


def test_names_and_tables(data):
    network, X = data
    featurizer = GradientFeaturizer(network, n_components=3).set_output(transform="pandas")
    table = featurizer.fit(X.numpy()).transform(X.numpy())
    assert list(table.columns) == [f"gradientfeaturizer{index}" for index in range(3)]


def test_features_beyond_the_machines_memory_are_refused(data, monkeypatch):
    network, X = data
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    with pytest.raises(MemoryError, match=r"of shape \(15, \d+\).*smaller n_components"):
        GradientFeaturizer(network).fit_transform(X)


METHODS = {
    "exact": {},
    "nystroem": {"n_components": 5},
    "nystroem, auto": {"n_components": "auto", "kernel_error": 0.1},
    "sketch": {"n_components": 9, "method": "sketch"},
    "sketch, auto": {"n_components": "auto", "method": "sketch", "kernel_error": 0.1},
}
methods = pytest.mark.parametrize("params", METHODS.values(), ids=METHODS)


def featurizer_of(network, **params):
    return GradientFeaturizer(network, random_state=0, **params)


@methods
def test_fitted_attributes_describe_the_features(data, params):
    network, X = data
    featurizer = featurizer_of(network, **params).fit(X)
    width = featurizer.transform(X).shape[1]
    assert featurizer.n_components_ == len(featurizer.get_feature_names_out()) == width


@methods
def test_rows_that_were_not_fitted_are_transformed_alike(data, params):
    network, X = data
    featurizer = featurizer_of(network, **params).fit(X)
    expected = featurizer.transform(X)[3:7]
    np.testing.assert_allclose(featurizer.transform(X[3:7]), expected, atol=1e-12)


@methods
def test_fit_transform_is_fit_then_transform(data, params):
    network, X = data
    featurizer = featurizer_of(network, **params)
    np.testing.assert_array_equal(featurizer.fit_transform(X), featurizer.fit(X).transform(X))


@methods
def test_a_pickle_gives_the_same_features(data, params):
    network, X = data
    featurizer = featurizer_of(network, **params).fit(X)
    again = pickle.loads(pickle.dumps(featurizer))
    np.testing.assert_array_equal(again.transform(X), featurizer.transform(X))


@methods
def test_a_clone_gives_the_same_features(data, params):
    network, X = data
    featurizer = featurizer_of(network, **params).fit(X)
    np.testing.assert_array_equal(clone(featurizer).fit_transform(X), featurizer.transform(X))


@methods
def test_a_dataset_gives_the_features_of_its_rows(data, params):
    network, X = data
    dataset = torch.utils.data.TensorDataset(X, torch.zeros(len(X)))
    found = featurizer_of(network, **params).fit_transform(dataset)
    expected = featurizer_of(network, **params).fit_transform(X)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@methods
def test_a_dict_gives_the_features_of_its_rows(data, params):
    network, X = data
    found = featurizer_of(network, **params).fit_transform({"input": X})
    expected = featurizer_of(network, **params).fit_transform(X)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@methods
def test_a_networks_own_preprocessing_is_kept(data, params):
    network, X = data
    net = NeuralNetRegressor(network, verbose=0).initialize()
    scaler = StandardScaler().fit(10 * X.numpy())
    found = featurizer_of(make_pipeline(scaler, net), **params).fit_transform(10 * X.numpy())
    scaled = scaler.transform(10 * X.numpy())
    np.testing.assert_allclose(
        found, featurizer_of(net, **params).fit_transform(scaled), atol=1e-10
    )


@methods
def test_one_row_is_enough(data, params):
    network, X = data
    params = params | ({"n_components": 1} if params.get("n_components") == 5 else {})
    featurizer = featurizer_of(network, **params).fit(X[:1])
    assert np.isfinite(featurizer.transform(X)).all()
    assert np.isfinite(featurizer.kernel_error_)


@methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_have_the_networks_dtype(params, dtype):
    network, X = build(NETWORKS[0], n_samples=15, dtype=getattr(torch, dtype))
    assert featurizer_of(network, **params).fit_transform(X).dtype == dtype


def test_one_landmark_gives_its_similarities(data):
    network, X = data
    features = featurizer_of(network, n_components=1).fit_transform(X)[:, 0]
    landmark = int(features.argmax())
    np.testing.assert_allclose(features, NetworkKernel(network)(X)[:, landmark], atol=1e-10)


@pytest.mark.parametrize("method", ["nystroem", "sketch"])
def test_auto_reaches_the_error_asked_for(data, method):
    network, X = data
    featurizer = featurizer_of(network, n_components="auto", method=method, kernel_error=0.1)
    assert 0 < featurizer.fit(X).kernel_error_ <= 0.1


def test_exact_features_have_no_error(data):
    network, X = data
    assert featurizer_of(network).fit(X).kernel_error_ == 0


@pytest.mark.parametrize("method", ["auto", "nystroem"])
def test_the_number_of_features_follows_the_landmarks_found(data, method):
    network, X = data
    featurizer = featurizer_of(network, n_components=4, method=method)
    with pytest.warns(FewerComponentsWarning, match="n_components_ is 1") as caught:
        assert featurizer.fit(torch.cat([X[:1]] * 10)).n_components_ == 1
    assert caught[0].filename == __file__


def test_the_warning_of_a_missed_error_points_to_fit(data):
    network, X = data
    with pytest.warns(
        FewerComponentsWarning, match="`kernel_error` 1e-09 was not reached"
    ) as caught:
        featurizer_of(network, n_components="auto", kernel_error=1e-9).fit(X)
    assert caught[0].filename == __file__


def classifier():
    layers = [nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)]
    return NeuralNetClassifier(
        nn.Sequential(*layers), criterion=nn.CrossEntropyLoss, verbose=0
    ).initialize()


def test_landmarks_of_the_loss_are_at_their_labels():
    """Fifteen landmarks span the gradients of fifteen rows, if they are those at the labels."""
    net, X = classifier(), torch.randn(15, 5)
    for y in (np.arange(15) % 3, np.arange(15) // 5):
        exact = featurizer_of(net, output="loss").fit_transform(X, y)
        found = featurizer_of(net, output="loss", n_components=15).fit_transform(X, y)
        np.testing.assert_allclose(found @ found.T, exact @ exact.T, atol=1e-4)


@pytest.mark.parametrize("params", [{"n_components": 2}, METHODS["sketch"]])
def test_the_error_of_the_losss_kernel_is_at_the_labels(params):
    net, X, y = classifier(), torch.randn(4, 5), np.array([0, 1, 2, 0])
    featurizer = featurizer_of(net, output="loss", **params)
    features = featurizer.fit_transform(X, y)
    exact = featurizer_of(net, output="loss").fit_transform(X, y)
    difference = (features @ features.T - exact @ exact.T)[~np.eye(4, dtype=bool)]
    assert featurizer.kernel_error_ == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-3)


@pytest.mark.parametrize("params", [{"n_components": 3}, METHODS["sketch"]])
def test_dead_samples_get_zero_features(params):
    network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    network[0].weight.data.uniform_(0.5, 1.5)
    X = torch.rand(12, 2) + 0.1
    X[4:8] *= -1
    with pytest.warns(UserWarning, match="samples have a zero gradient"):
        features = featurizer_of(network, **params).fit_transform(X)
    assert (features[4:8] == 0).all()
    assert (np.linalg.norm(features[[0, 1, 2, 3, 8, 9, 10, 11]], axis=1) > 0).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 0}, "'n_components' parameter .* Got 0 instead"),
        ({"n_components": 2.5}, "'n_components' parameter .* Got 2.5 instead"),
        ({"n_components": "all"}, "'n_components' parameter .* Got 'all' instead"),
        ({"kernel_error": 0}, "'kernel_error' parameter .* Got 0 instead"),
        ({"kernel_error": np.nan}, "'kernel_error' parameter .* Got nan instead"),
        ({"method": "pca"}, "'method' parameter .* Got 'pca' instead"),
        ({"method": "exact", "n_components": 5}, "n_components is 5 and method is 'exact'.*None"),
        ({"method": "exact", "n_components": "auto"}, "n_components is 'auto' and method is"),
        ({"method": "nystroem"}, "`n_components` must be .* for method='nystroem'; got None"),
        ({"method": "sketch"}, "`n_components` must be .* for method='sketch'; got None"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(data, params, message):
    network, X = data
    with pytest.raises(ValueError, match=message):
        GradientFeaturizer(network, **params).fit(X)


#: Estimators that compare rows by features where they have ``n_components``, and what they give.
BY_FEATURES = {
    "soft density": (NetworkDensity, {}, "score_samples"),
    "power": (NetworkDensity, {"method": "power"}, "neighbor_count"),
    "threshold": (NetworkDensity, {"method": "threshold", "threshold": 0.5}, "neighbor_count"),
    "neighbours": (NetworkNeighbors, {"n_neighbors": 3}, "kneighbors"),
    "labels": (LabelDenoiser, {"alpha": 2.0}, "transform"),
}


@pytest.mark.parametrize("name", BY_FEATURES)
def test_estimators_with_components_are_those_of_the_featurizers_rows(name, data):
    network, X = data
    estimator, params, method = BY_FEATURES[name]
    y = np.arange(len(X)) % 3
    same = {"n_components": 5, "random_state": 0}
    features = GradientFeaturizer(network, **same).fit_transform(X)
    inside = getattr(estimator(network, **same, **params).fit(X, y), method)(X)
    outside = getattr(estimator("features", **params).fit(features, y), method)(features)
    np.testing.assert_allclose(inside, outside, atol=1e-9)
