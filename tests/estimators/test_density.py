"""NetworkDensity compared with counts over the rows of the gram matrix."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch import nn

from sknetsim import GradientFeaturizer, NetworkDensity, NetworkKernel
from sknetsim._kernels.similarities import log_mean_power, log_mean_threshold
from sknetsim._networks.samples import Samples
from sknetsim.exceptions import FewerComponentsWarning, ZeroGradientWarning

from ..cases import NETWORKS, build

METHODS = {
    "soft": (NetworkDensity(method="soft"), lambda k: k),
    "threshold": (NetworkDensity(method="threshold", threshold=0.8), lambda k: 1.0 * (k >= 0.8)),
    "power": (NetworkDensity(method="power", alpha=3.0), lambda k: np.clip(k, 0, None) ** 3.0),
}
methods = pytest.mark.parametrize("method", METHODS)


def make_density(method, network, **params):
    return clone(METHODS[method][0]).set_params(estimator=network, **params)


@methods
@pytest.mark.parametrize("case", NETWORKS[:3] + NETWORKS[10:16], ids=lambda case: case.name)
def test_counts_are_row_sums_of_the_gram_matrix(case, method):
    network, X = build(case, n_samples=12)
    density = make_density(method, network, output=case.output).fit(X[:8])
    expected = METHODS[method][1](NetworkKernel(network, case.output)(X, X[:8])).sum(axis=1)
    np.testing.assert_allclose(density.neighbor_count(X), expected, atol=1e-8)


def compute_log_density(method, gram, own, dimension):
    """Return the log density by its definition, without the sample identical to the query."""
    density, count = METHODS[method]
    result = []
    for row, position in zip(gram, own, strict=True):
        others = np.delete(row, [] if position is None else [position])
        if method == "soft":
            terms = 1 + others
        else:
            log_mean = log_mean_threshold if method == "threshold" else log_mean_power
            parameter = density.threshold if method == "threshold" else density.alpha
            terms = count(others) / np.exp(log_mean(parameter, dimension + 1))
        result.append(np.log((1 + terms.sum()) / (len(others) + 1)))
    return np.array(result)


@methods
def test_log_density_equals_its_definition(method):
    network, X = build(NETWORKS[0], n_samples=14)
    density = make_density(method, network, dimension=3.0).fit(X[:10])
    gram = NetworkKernel(network)(X, X[:10])
    expected = compute_log_density(method, gram, [*range(10), None, None, None, None], 3.0)
    np.testing.assert_allclose(density.score_samples(X), expected, atol=1e-8)
    assert density.score(X) == pytest.approx(expected.sum())


@methods
def test_only_one_sample_identical_to_the_query_is_left_out(method):
    network, X = build(NETWORKS[0], n_samples=8)
    twice = torch.cat([X, X[:1]])
    density = make_density(method, network, dimension=3.0)
    other = density.fit(torch.cat([X[1:], X[:1]])).score_samples(X[:1])
    assert density.fit(twice).score_samples(X[:1]) >= other


def test_log_density_without_neighbours_is_that_of_the_pseudo_count():
    network, X = build(NETWORKS[0], n_samples=8)
    density = NetworkDensity(network, method="threshold", threshold=0.999999, dimension=4.0)
    assert density.fit(X).score_samples(X) == pytest.approx(np.full(8, -np.log(8)))


@methods
def test_order_and_seed_do_not_matter(method):
    network, X = build(NETWORKS[0], n_samples=30)
    order = np.random.default_rng(0).permutation(30)
    first = make_density(method, network, random_state=0).fit(X)
    second = make_density(method, network, random_state=1, batch_size=7).fit(X[order])
    assert first.dimension_ == pytest.approx(second.dimension_)
    np.testing.assert_allclose(first.score_samples(X), second.score_samples(X), atol=1e-9)


def test_the_dimension_is_estimated_only_if_the_method_needs_it():
    network, X = build(NETWORKS[0], n_samples=30)
    assert NetworkDensity(network).fit(X).dimension_ is None
    assert NetworkDensity(network, method="power").fit(X).dimension_ >= 1
    assert NetworkDensity(network, method="power", dimension=2.5).fit(X).dimension_ == 2.5


def test_features_are_compared_by_their_inner_products():
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [0.3, 0.0]])
    soft = NetworkDensity("features").fit(rows)
    np.testing.assert_allclose(soft.neighbor_count(rows), (rows @ rows.T).sum(axis=1))
    hard = NetworkDensity("features", method="threshold", threshold=0.3).fit(rows)
    assert hard.neighbor_count(rows).tolist() == [3, 2, 1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_log_densities_are_finite(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    X = scale * torch.randn(9, 3, generator=generator, dtype=torch.float64)
    X[3] = X[2]
    for method in METHODS:
        scores = make_density(method, network).fit(X).score_samples(X)
        assert np.isfinite(scores).all()


def test_dense_regions_score_higher():
    generator = np.random.default_rng(0)
    X = np.vstack([generator.normal(size=(200, 2)) * 0.1, generator.uniform(-3, 3, size=(50, 2))])
    y = np.sin(X[:, 0]) + X[:, 1]
    for method in METHODS:
        density = clone(METHODS[method][0]).set_params(random_state=0).fit(X, y)
        inside, outside = (
            density.score_samples(generator.normal(size=(50, 2)) * 0.1),
            density.score_samples([[3.0, -3.0]]),
        )
        assert np.median(inside) > outside[0]


def make_density_by_features(method, network, n_components=5, **params):
    return make_density(method, network, n_components=n_components, random_state=0, **params)


def make_transform(network, X, n_components=5):
    featurizer = GradientFeaturizer(network, n_components=n_components, random_state=0)
    return featurizer.fit(X).transform


@methods
def test_counts_by_features_are_sums_of_inner_products(method):
    network, X = build(NETWORKS[0], n_samples=20)
    transform = make_transform(network, X[:14])
    gram = transform(X) @ transform(X[:14]).T
    actual = make_density_by_features(method, network).fit(X[:14]).neighbor_count(X)
    np.testing.assert_allclose(actual, METHODS[method][1](gram).sum(axis=1), atol=1e-8)


@methods
def test_log_density_by_features_equals_its_definition(method):
    """The sample identical to the query is left out, although its similarity is below 1."""
    network, X = build(NETWORKS[0], n_samples=18)
    transform = make_transform(network, X[:14])
    gram = transform(X) @ transform(X[:14]).T
    expected = compute_log_density(method, gram, [*range(14), None, None, None, None], 3.0)
    density = make_density_by_features(method, network, dimension=3.0).fit(X[:14])
    np.testing.assert_allclose(density.score_samples(X), expected, atol=1e-8)


@methods
def test_features_that_span_all_samples_give_the_exact_density(method):
    network, X = build(NETWORKS[0], n_samples=14)
    exact = make_density(method, network).fit(X)
    density = make_density_by_features(method, network, n_components=14).fit(X)
    np.testing.assert_allclose(density.score_samples(X), exact.score_samples(X), atol=1e-6)


def test_soft_counts_by_features_are_exact_up_to_the_sum_of_the_errors():
    network, X = build(NETWORKS[0], n_samples=30)
    transform = make_transform(network, X)
    errors = transform(X) @ transform(X).T - NetworkKernel(network)(X)
    exact = NetworkDensity(network).fit(X).neighbor_count(X)
    actual = make_density_by_features("soft", network).fit(X).neighbor_count(X)
    np.testing.assert_allclose(actual - exact, errors.sum(axis=1), atol=1e-8)


@methods
def test_kernel_error_is_that_of_the_featurizer(method):
    network, X = build(NETWORKS[0], n_samples=20)
    featurizer = GradientFeaturizer(network, n_components=5, random_state=0).fit(X)
    assert (
        make_density_by_features(method, network).fit(X).kernel_error_
        == featurizer.kernel_error_
        > 0
    )


@methods
def test_kernel_error_is_zero_without_features(method):
    network, X = build(NETWORKS[0], n_samples=20)
    density = make_density_by_features(method, network).fit(X)
    assert density.set_params(n_components=None).fit(X).kernel_error_ == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_compared_in_the_dtype_of_the_gradients(dtype):
    network, X = build(NETWORKS[0], n_samples=20, dtype=dtype)
    density = make_density_by_features("soft", network).fit(X)
    assert density._project(density._make_source(), Samples(X))[0].dtype == dtype


@methods
@pytest.mark.parametrize("copied", [clone, lambda fitted: pickle.loads(pickle.dumps(fitted))])
def test_copies_give_the_same_density_by_features(method, copied):
    network, X = build(NETWORKS[0], n_samples=20)
    density = make_density_by_features(method, network).fit(X)
    expected, again = density.score_samples(X), copied(density)
    if not hasattr(again, "n_samples_fit_"):
        again.fit(X)
    np.testing.assert_array_equal(again.score_samples(X), expected)


@methods
def test_datasets_and_dicts_have_the_density_of_their_samples(method):
    network, X = build(NETWORKS[0], n_samples=20)
    expected = make_density_by_features(method, network).fit(X).score_samples(X)
    for rows in (torch.utils.data.TensorDataset(X), {"input": X}):
        actual = make_density_by_features(method, network).fit(rows).score_samples(rows)
        np.testing.assert_allclose(actual, expected, atol=1e-8)


@methods
def test_one_sample_is_enough_for_features(method):
    network, X = build(NETWORKS[0], n_samples=4)
    density = make_density_by_features(method, network, n_components=1).fit(X[:1])
    assert np.isfinite(density.score_samples(X)).all()


@methods
def test_samples_with_zero_gradients_have_a_finite_density_by_features(method):
    network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    network[0].weight.data.uniform_(0.5, 1.5)
    X = torch.rand(15, 2) + 0.1
    X[5:8] *= -1
    with pytest.warns(UserWarning, match="samples have a zero gradient"):
        density = make_density_by_features(method, network, n_components=2).fit(X)
        assert density.neighbor_count(X)[5:8].tolist() == [0, 0, 0]
        assert np.isfinite(density.score_samples(X)).all()


def test_a_warning_reports_fewer_features_than_requested():
    network, X = build(NETWORKS[0], n_samples=4)
    with pytest.warns(FewerComponentsWarning, match="`n_components` is 5, but .* rank 1,"):
        make_density_by_features("soft", network).fit(torch.cat([X[:1]] * 10))


@pytest.mark.parametrize(
    ("n_components", "message"),
    [
        (0, "'n_components' parameter .* Got 0 instead"),
        ("auto", "'n_components' parameter .* Got 'auto' instead"),
        (9, "`n_components` must be an integer between 1 and 8 .*; got 9"),
    ],
)
def test_invalid_numbers_of_features_raise_an_error(n_components, message):
    network, X = build(NETWORKS[0], n_samples=8)
    with pytest.raises(ValueError, match=message):
        NetworkDensity(network, n_components=n_components).fit(X)


@pytest.mark.parametrize("case", NETWORKS[:3], ids=lambda case: case.name)
@methods
def test_reliability_is_the_sum_of_unnormalised_kernels(case, method):
    network, X = build(case, n_samples=9)
    density = make_density(method, network, output=case.output, dimension=3.0).fit(X[:6])
    gram = NetworkKernel(network, case.output, normalize=False)(X[6:], X[:6])
    own = NetworkKernel(network, case.output, normalize=False).diag(X[6:])
    np.testing.assert_allclose(density.reliability(X[6:]), gram.sum(axis=1) / own, rtol=1e-8)


@pytest.mark.parametrize("case", NETWORKS[:3], ids=lambda case: case.name)
def test_absolute_reliability_sums_absolute_values(case):
    network, X = build(case, n_samples=9)
    density = NetworkDensity(network, output=case.output).fit(X[:6])
    gram = NetworkKernel(network, case.output, normalize=False)(X, X[:6])
    own = NetworkKernel(network, case.output, normalize=False).diag(X)
    expected = np.abs(gram).sum(axis=1) / own
    np.testing.assert_allclose(density.reliability(X, absolute=True), expected, rtol=1e-8)


def test_reliability_counts_equal_samples():
    network, X = build(NETWORKS[0], n_samples=2)
    density = NetworkDensity(network).fit(torch.cat([X[:1]] * 5))
    np.testing.assert_allclose(density.reliability(X[:1]), 5)


def test_reliability_is_zero_if_all_gradients_are_zero():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1, bias=False)).double()
    nn.init.constant_(network[0].bias, -100.0)
    X = torch.randn(5, 3, dtype=torch.float64)
    with pytest.warns(ZeroGradientWarning):
        assert NetworkDensity(network).fit(X).reliability(X).tolist() == [0.0] * 5
