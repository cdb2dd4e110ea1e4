"""GradientFeaturizer compared with the kernel, for all methods."""

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
    NetworkKernel,
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


def test_fewer_landmarks_project_the_gradients(data):
    network, X = data
    features = GradientFeaturizer(network, n_components=5, random_state=0).fit_transform(X)
    error = NetworkKernel(network)(X) - features @ features.T
    assert features.shape == (15, 5)
    assert np.linalg.eigvalsh(error).min() > -1e-8
    assert (np.linalg.norm(features, axis=1) <= 1 + 1e-8).all()


def test_landmarks_depend_only_on_the_seed(data):
    network, X = data
    featurizer = GradientFeaturizer(network, n_components=5, random_state=0)
    first = featurizer.fit_transform(X)
    np.testing.assert_array_equal(first, clone(featurizer).fit_transform(X))
    assert not np.allclose(first, featurizer.set_params(random_state=1).fit_transform(X))


def test_more_landmarks_than_samples_raise_an_error(data):
    network, X = data
    with pytest.raises(ValueError, match=r"must be an integer between 1 and 15 .*; got 16"):
        GradientFeaturizer(network, n_components=16).fit(X)


def test_duplicate_landmarks_give_no_nan(data):
    network, X = data
    X = torch.cat([X[:1]] * 6 + [X])
    features = GradientFeaturizer(network, n_components=21, random_state=0).fit_transform(X)
    np.testing.assert_allclose(features @ features.T, NetworkKernel(network)(X), atol=1e-5)


def test_columns_of_a_table_have_names(data):
    network, X = data
    featurizer = GradientFeaturizer(network, n_components=3).set_output(transform="pandas")
    table = featurizer.fit(X.numpy()).transform(X.numpy())
    assert list(table.columns) == [f"gradientfeaturizer{index}" for index in range(3)]


def test_features_beyond_the_memory_of_the_machine_raise_an_error(data, monkeypatch):
    network, X = data
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    with pytest.raises(MemoryError, match=r"of shape \(15, \d+\).*smaller `n_components`"):
        GradientFeaturizer(network).fit_transform(X)


METHODS = {
    "exact": {},
    "nystroem": {"n_components": 5},
    "nystroem, auto": {"n_components": "auto", "kernel_error": 0.1},
    "sketch": {"n_components": 9, "method": "sketch"},
    "sketch, auto": {"n_components": "auto", "method": "sketch", "kernel_error": 0.1},
}
methods = pytest.mark.parametrize("params", METHODS.values(), ids=METHODS)


def make_featurizer(network, **params):
    return GradientFeaturizer(network, random_state=0, **params)


@methods
def test_fitted_attributes_describe_the_features(data, params):
    network, X = data
    featurizer = make_featurizer(network, **params).fit(X)
    width = featurizer.transform(X).shape[1]
    assert featurizer.n_components_ == len(featurizer.get_feature_names_out()) == width


@methods
def test_a_sample_has_the_same_features_in_any_query(data, params):
    network, X = data
    featurizer = make_featurizer(network, **params).fit(X)
    expected = featurizer.transform(X)[3:7]
    np.testing.assert_allclose(featurizer.transform(X[3:7]), expected, atol=1e-12)


@methods
def test_fit_transform_is_fit_then_transform(data, params):
    network, X = data
    featurizer = make_featurizer(network, **params)
    np.testing.assert_array_equal(featurizer.fit_transform(X), featurizer.fit(X).transform(X))


@methods
def test_a_pickle_gives_the_same_features(data, params):
    network, X = data
    featurizer = make_featurizer(network, **params).fit(X)
    again = pickle.loads(pickle.dumps(featurizer))
    np.testing.assert_array_equal(again.transform(X), featurizer.transform(X))


@methods
def test_a_clone_gives_the_same_features(data, params):
    network, X = data
    featurizer = make_featurizer(network, **params).fit(X)
    np.testing.assert_array_equal(clone(featurizer).fit_transform(X), featurizer.transform(X))


@methods
def test_a_dataset_gives_the_features_of_its_samples(data, params):
    network, X = data
    dataset = torch.utils.data.TensorDataset(X, torch.zeros(len(X)))
    actual = make_featurizer(network, **params).fit_transform(dataset)
    expected = make_featurizer(network, **params).fit_transform(X)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@methods
def test_a_dict_gives_the_features_of_its_samples(data, params):
    network, X = data
    actual = make_featurizer(network, **params).fit_transform({"input": X})
    expected = make_featurizer(network, **params).fit_transform(X)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@methods
def test_the_preprocessing_of_a_pipeline_is_applied(data, params):
    network, X = data
    net = NeuralNetRegressor(network, verbose=0).initialize()
    scaler = StandardScaler().fit(10 * X.numpy())
    actual = make_featurizer(make_pipeline(scaler, net), **params).fit_transform(10 * X.numpy())
    scaled = scaler.transform(10 * X.numpy())
    np.testing.assert_allclose(
        actual, make_featurizer(net, **params).fit_transform(scaled), atol=1e-10
    )


@methods
def test_one_sample_is_enough(data, params):
    network, X = data
    params = params | ({"n_components": 1} if params.get("n_components") == 5 else {})
    featurizer = make_featurizer(network, **params).fit(X[:1])
    assert np.isfinite(featurizer.transform(X)).all()
    assert np.isfinite(featurizer.kernel_error_)


@methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_have_the_dtype_of_the_network(params, dtype):
    network, X = build(NETWORKS[0], n_samples=15, dtype=getattr(torch, dtype))
    assert make_featurizer(network, **params).fit_transform(X).dtype == dtype


def test_the_feature_of_one_landmark_is_the_similarity_with_it(data):
    network, X = data
    features = make_featurizer(network, n_components=1).fit_transform(X)[:, 0]
    landmark = int(features.argmax())
    np.testing.assert_allclose(features, NetworkKernel(network)(X)[:, landmark], atol=1e-10)


@pytest.mark.parametrize("method", ["nystroem", "sketch"])
def test_auto_reaches_the_requested_error(data, method):
    network, X = data
    featurizer = make_featurizer(network, n_components="auto", method=method, kernel_error=0.1)
    assert 0 < featurizer.fit(X).kernel_error_ <= 0.1


def test_exact_features_have_no_error(data):
    network, X = data
    assert make_featurizer(network).fit(X).kernel_error_ == 0


@pytest.mark.parametrize("method", ["auto", "nystroem"])
def test_there_are_only_as_many_features_as_landmarks(data, method):
    network, X = data
    featurizer = make_featurizer(network, n_components=4, method=method)
    with pytest.warns(FewerComponentsWarning, match="`n_components_` is 1") as caught:
        assert featurizer.fit(torch.cat([X[:1]] * 10)).n_components_ == 1
    assert caught[0].filename == __file__


def test_the_warning_of_a_missed_error_points_to_fit(data):
    network, X = data
    with pytest.warns(
        FewerComponentsWarning, match="`kernel_error` 1e-09 was not reached"
    ) as caught:
        make_featurizer(network, n_components="auto", kernel_error=1e-9).fit(X)
    assert caught[0].filename == __file__


def make_classifier():
    layers = [nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)]
    return NeuralNetClassifier(
        nn.Sequential(*layers), criterion=nn.CrossEntropyLoss, verbose=0
    ).initialize()


def test_landmarks_of_the_loss_use_their_labels():
    """Fifteen landmarks span fifteen gradients if both are at the same labels."""
    net, X = make_classifier(), torch.randn(15, 5)
    for y in (np.arange(15) % 3, np.arange(15) // 5):
        exact = make_featurizer(net, output="loss").fit_transform(X, y)
        actual = make_featurizer(net, output="loss", n_components=15).fit_transform(X, y)
        np.testing.assert_allclose(actual @ actual.T, exact @ exact.T, atol=1e-4)


@pytest.mark.parametrize("params", [{"n_components": 2}, METHODS["sketch"]])
def test_the_kernel_error_of_the_loss_uses_the_labels(params):
    net, X, y = make_classifier(), torch.randn(4, 5), np.array([0, 1, 2, 0])
    featurizer = make_featurizer(net, output="loss", **params)
    features = featurizer.fit_transform(X, y)
    exact = make_featurizer(net, output="loss").fit_transform(X, y)
    difference = (features @ features.T - exact @ exact.T)[~np.eye(4, dtype=bool)]
    assert featurizer.kernel_error_ == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-3)


@pytest.mark.parametrize("params", [{"n_components": 3}, METHODS["sketch"]])
def test_samples_with_zero_gradients_have_zero_features(params):
    network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    network[0].weight.data.uniform_(0.5, 1.5)
    X = torch.rand(12, 2) + 0.1
    X[4:8] *= -1
    with pytest.warns(UserWarning, match="samples have a zero gradient"):
        features = make_featurizer(network, **params).fit_transform(X)
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
        ({"method": "exact", "n_components": 5}, "must be None .*; got 5. Set n_comp.*=None"),
        ({"method": "exact", "n_components": "auto"}, "must be None .* got 'auto'"),
        ({"method": "nystroem"}, "`n_components` must be .* for method='nystroem'; got None"),
        ({"method": "sketch"}, "`n_components` must be .* for method='sketch'; got None"),
    ],
    ids=str,
)
def test_invalid_parameters_raise_an_error(data, params, message):
    network, X = data
    with pytest.raises(ValueError, match=message):
        GradientFeaturizer(network, **params).fit(X)
