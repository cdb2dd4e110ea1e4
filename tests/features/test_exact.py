"""Exact features, and properties of all kinds of features."""

import numpy as np
import pytest
import torch

from sknetsim._features import METHODS
from sknetsim._features.exact import Exact
from sknetsim._features.source import FeatureSource
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes.reductions import gram_matrix

from .. import naive
from ..cases import NETWORKS, build

COMPONENTS = {"exact": None, "nystroem": 5, "sketch": 7}
methods = pytest.mark.parametrize("method", METHODS)


def fit(method, source, X, n_components):
    generator = np.random.RandomState(0)
    samples = Samples.of(X)
    return METHODS[method](source, samples, n_components, 0.1, generator)


def make_data(dtype=torch.float64):
    network, X = build(NETWORKS[0], n_samples=12, dtype=dtype)
    return GradientEngine(resolve_network(network)), X


@methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_have_the_dtype_of_the_gradients(method, dtype):
    source, X = make_data(getattr(torch, dtype))
    assert fit(method, source, X, COMPONENTS[method]).transform(source, Samples(X)).dtype == dtype


@methods
def test_there_is_one_feature_per_component(method):
    source, X = make_data()
    projection = fit(method, source, X, COMPONENTS[method])
    assert projection.transform(source, Samples(X[:2])).shape == (2, projection.n_components)


@methods
def test_features_of_a_sample_do_not_depend_on_other_samples(method):
    source, X = make_data()
    projection = fit(method, source, X, COMPONENTS[method])
    alone = np.vstack([projection.transform(source, Samples(X[row : row + 1])) for row in range(3)])
    np.testing.assert_allclose(alone, projection.transform(source, Samples(X))[:3], atol=1e-12)


@methods
def test_features_of_features_can_be_computed(method):
    source, rows = FeatureSource(), np.eye(6)[:, :5]
    projection = fit(method, source, rows, None if method == "exact" else 3)
    assert projection.transform(source, Samples(rows)).shape == (6, projection.n_components)


def test_products_of_exact_features_are_the_similarities():
    source, X = make_data()
    features = fit("exact", source, X, None).transform(source, Samples(X))
    np.testing.assert_allclose(features @ features.T, gram_matrix(source, Samples(X)), atol=1e-12)


def test_exact_features_have_no_error():
    source, X = make_data()
    assert fit("exact", source, X, None).kernel_error == 0


@pytest.mark.parametrize("n_components", [5, "auto"])
def test_a_number_of_exact_features_raises_an_error(n_components):
    source, X = make_data()
    with pytest.raises(ValueError, match=f"must be None for method='exact'.* got {n_components!r}"):
        fit("exact", source, X, n_components)


@pytest.mark.parametrize("whitening", ["none", "half", "unit"])
def test_exact_features_are_the_whitened_jacobians(whitening):
    network, X = build(NETWORKS[0], n_samples=12)
    source = GradientEngine(resolve_network(network))
    width = fit("exact", source, X, None).n_components
    features = Exact(width, whitening=whitening).transform(source, Samples(X))
    for row, jacobian in zip(features, naive.jacobians(network, X), strict=True):
        root, rank = naive.inverse_root(jacobian @ jacobian.T, 1e-16)
        matrix = {"none": np.eye(len(root)), "half": root, "unit": root / rank**0.5}[whitening]
        np.testing.assert_allclose(row, (matrix @ jacobian).ravel(), atol=1e-9)
