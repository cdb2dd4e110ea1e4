"""What all ways from Jacobians to features have in common."""

import numpy as np
import pytest
import torch

from sknetsim import _features as _projections__features
from sknetsim._features.rows import FeatureRows
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes import reductions as _reductions

from ..cases import NETWORKS, build

COMPONENTS = {"exact": None, "nystroem": 5, "sketch": 7}
methods = pytest.mark.parametrize("method", _projections__features.METHODS)


def fit(method, source, X, n_components):
    generator = np.random.RandomState(0)
    samples = Samples.of(X)
    return _projections__features.METHODS[method](
        source, samples, None, n_components, 0.1, generator
    )


def data(dtype=torch.float64):
    network, X = build(NETWORKS[0], n_samples=12, dtype=dtype)
    return GradientEngine(resolve_network(network)), X


@methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_have_the_gradients_dtype(method, dtype):
    source, X = data(getattr(torch, dtype))
    assert fit(method, source, X, COMPONENTS[method]).transform(source, Samples(X)).dtype == dtype


@methods
def test_features_are_as_many_as_the_components(method):
    source, X = data()
    projection = fit(method, source, X, COMPONENTS[method])
    assert projection.transform(source, Samples(X[:2])).shape == (2, projection.n_components)


@methods
def test_features_of_a_row_do_not_depend_on_the_others(method):
    source, X = data()
    projection = fit(method, source, X, COMPONENTS[method])
    alone = np.vstack([projection.transform(source, Samples(X[row : row + 1])) for row in range(3)])
    np.testing.assert_allclose(alone, projection.transform(source, Samples(X))[:3], atol=1e-12)


@methods
def test_features_of_features_are_fitted_too(method):
    source, rows = FeatureRows(), np.eye(6)[:, :5]
    projection = fit(method, source, rows, None if method == "exact" else 3)
    assert projection.transform(source, Samples(rows)).shape == (6, projection.n_components)


def test_products_of_exact_features_are_the_similarities():
    source, X = data()
    features = fit("exact", source, X, None).transform(source, Samples(X))
    np.testing.assert_allclose(
        features @ features.T, _reductions.gram_matrix(source, Samples(X)), atol=1e-12
    )


def test_exact_features_have_no_error():
    source, X = data()
    assert fit("exact", source, X, None).kernel_error == 0


@pytest.mark.parametrize("n_components", [5, "auto"])
def test_exact_features_cannot_be_fewer(n_components):
    source, X = data()
    with pytest.raises(ValueError, match=f"must be None for method='exact'.* got {n_components!r}"):
        fit("exact", source, X, n_components)
