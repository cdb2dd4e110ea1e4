"""GradientFeaturizer beyond the exact features of test_gradients."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sknetsim import GradientFeaturizer, NetworkKernel

from .cases import NETWORKS, build


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
    with pytest.raises(MemoryError, match=r"15 rows of \d+ exact features.*choose fewer"):
        GradientFeaturizer(network).fit_transform(X)
