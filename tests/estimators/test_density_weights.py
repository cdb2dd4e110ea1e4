"""NetworkDensity with sample_weight compared with repeated samples and with its definition."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import GradientFeaturizer, NetworkDensity, NetworkKernel
from sknetsim.estimators.density import _compute_quantile

from ..cases import NETWORKS, build
from .test_density import METHODS

methods = pytest.mark.parametrize("method", METHODS)
COUNTS = np.array([2, 1, 0, 3, 1, 1, 2, 0, 1, 4])


@pytest.fixture(scope="module")
def data():
    """Return a network, 10 samples to fit, and 4 other samples."""
    network, X = build(NETWORKS[0], n_samples=14)
    X = X.numpy()
    return network, X[:10], X[10:]


def make_density(method, network, **params):
    return clone(METHODS[method][0]).set_params(estimator=network, **params)


def list_results(density, *queries):
    """Return all results of a fitted density, for some sets of queries."""
    results = [density.offset_, density.dimension_ or 0]
    for X in queries:
        results += [
            *density.neighbor_count(X),
            *density.score_samples(X),
            *density.decision_function(X),
            *density.reliability(X),
            *density.reliability(X, absolute=True),
        ]
    return np.array(results)


SETTINGS = {"plain": {}, "workers": {"n_jobs": 2}, "one by one": {"batch_size": 1}}


@methods
@pytest.mark.parametrize("params", SETTINGS.values(), ids=SETTINGS)
def test_whole_weights_equal_repeated_samples(data, method, params):
    import joblib

    network, X, others = data
    weighted = make_density(method, network, contamination=0.3, **params)
    with joblib.parallel_config("threading"):
        repeated = clone(weighted).fit(X.repeat(COUNTS, axis=0))
        weighted.fit(X, sample_weight=COUNTS)
        expected = list_results(repeated, X, others)
        np.testing.assert_allclose(list_results(weighted, X, others), expected, rtol=1e-9)


@methods
def test_the_log_density_equals_its_weighted_definition(data, method):
    network, X, others = data
    weights = np.random.default_rng(0).uniform(0.1, 3, 10)
    density = make_density(method, network, dimension=3.0).fit(X, sample_weight=weights)
    queries = np.concatenate([X, others])
    grams = NetworkKernel(network)(queries, X)
    for score, gram, own in zip(density.score_samples(queries), grams, range(14), strict=True):
        kept = weights.copy()
        if own < 10:
            kept[own] = max(0, weights[own] - 1)
        values = 1 + gram if method == "soft" else METHODS[method][1](gram)
        mean = 1 if method == "soft" else np.exp(density._log_mean())
        expected = np.log((1 + kept @ values / mean) / (kept.sum() + 1))
        assert score == pytest.approx(expected, abs=1e-9)


@methods
def test_counts_and_reliabilities_are_weighted_sums(data, method):
    network, X, others = data
    weights = np.random.default_rng(0).uniform(0.1, 3, 10)
    density = make_density(method, network).fit(X, sample_weight=weights)
    counts = METHODS[method][1](NetworkKernel(network)(others, X)) @ weights
    np.testing.assert_allclose(density.neighbor_count(others), counts, atol=1e-9)
    parts = [NetworkDensity(network).fit(X[i : i + 1]).reliability(others) for i in range(10)]
    np.testing.assert_allclose(density.reliability(others), weights @ parts, atol=1e-9)
    np.testing.assert_allclose(
        density.reliability(others, absolute=True), weights @ np.abs(parts), atol=1e-9
    )


@methods
def test_weights_1_equal_no_weights(data, method):
    network, X, others = data
    expected = list_results(make_density(method, network).fit(X), X, others)
    for ones in (np.ones(10), [1] * 10, 1, torch.ones(10), pd.Series(np.ones(10))):
        weighted = make_density(method, network).fit(X, sample_weight=ones)
        np.testing.assert_allclose(list_results(weighted, X, others), expected, rtol=1e-12)


@methods
@pytest.mark.parametrize("n_components", [None, 3])
def test_weight_0_equals_absence(data, method, n_components):
    network, X, others = data
    weights = np.where(COUNTS > 0, 0.5, 0)
    density = make_density(method, network, n_components=n_components, random_state=0)
    expected = clone(density).fit(X[COUNTS > 0], sample_weight=0.5)
    density.fit(X, sample_weight=weights)
    assert density.n_samples_fit_ == expected.n_samples_fit_ == 8
    assert density.kernel_error_ == expected.kernel_error_
    np.testing.assert_array_equal(
        list_results(density, X, others), list_results(expected, X, others)
    )


@methods
def test_weights_of_equal_samples_add_up(data, method):
    network, X, others = data
    weights = np.array([0.4, 1, 2, 0.6, 3, 1.5, 1, 1, 1, 1])
    split = np.concatenate([X, X[[0, 3, 5]]])
    shares = np.concatenate([weights, [0.6, 1.4, 0.5]])
    weights[[0, 3, 5]] += [0.6, 1.4, 0.5]
    expected = make_density(method, network).fit(X, sample_weight=weights)
    density = make_density(method, network).fit(split, sample_weight=shares)
    np.testing.assert_allclose(
        list_results(density, X, others), list_results(expected, X, others), rtol=1e-9
    )


@methods
def test_features_are_weighted(data, method):
    network, X, others = data
    density = make_density(method, network, n_components=4, random_state=0)
    density.fit(X, sample_weight=COUNTS + 0.5)
    transform = GradientFeaturizer(network, n_components=4, random_state=0).fit(X).transform
    expected = METHODS[method][1](transform(others) @ transform(X).T) @ (COUNTS + 0.5)
    np.testing.assert_allclose(density.neighbor_count(others), expected, atol=1e-8)


@methods
def test_features_without_a_network_are_weighted(method):
    X = np.random.default_rng(0).normal(size=(10, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    repeated = make_density(method, "features").fit(X.repeat(COUNTS, axis=0))
    weighted = make_density(method, "features").fit(X, sample_weight=COUNTS)
    np.testing.assert_allclose(weighted.score_samples(X), repeated.score_samples(X), rtol=1e-9)
    assert weighted.offset_ == pytest.approx(repeated.offset_)


@methods
def test_a_pickle_keeps_the_weights(data, method):
    network, X, others = data
    density = make_density(method, network).fit(X, sample_weight=COUNTS)
    loaded = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(list_results(loaded, others), list_results(density, others))


def test_another_fit_forgets_the_weights(data):
    network, X, others = data
    density = NetworkDensity(network).fit(X, sample_weight=COUNTS)
    expected = NetworkDensity(network).fit(X).score_samples(others)
    np.testing.assert_array_equal(density.fit(X).score_samples(others), expected)


def test_fit_predict_takes_weights(data):
    network, X, _ = data
    density = NetworkDensity(network, contamination=0.3)
    expected = clone(density).fit(X, sample_weight=COUNTS).predict(X)
    np.testing.assert_array_equal(density.fit_predict(X, sample_weight=COUNTS), expected)


TARGETS = {
    "classes": np.arange(10) % 3,
    "names": np.array(list("abcabcabca")),
    "numbers": COUNTS / 3,
}


@pytest.mark.parametrize("y", [None, *TARGETS.values()], ids=["none", *TARGETS])
def test_the_default_network_is_trained_with_the_weights(data, y):
    _, X, others = data
    labels = None if y is None else y.repeat(COUNTS)
    repeated = NetworkDensity(random_state=0).fit(X.repeat(COUNTS, axis=0), labels)
    weighted = NetworkDensity(random_state=0).fit(X, y, sample_weight=COUNTS)
    np.testing.assert_allclose(
        weighted.score_samples(others), repeated.score_samples(others), rtol=1e-6
    )


class Inputs(torch.utils.data.Dataset):
    """Dataset of the rows of an array."""

    def __init__(self, X):
        self.X = torch.as_tensor(X)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return self.X[index]


FORMS = {
    "tensor": torch.as_tensor,
    "table": pd.DataFrame,
    "Dataset": Inputs,
    "list": np.ndarray.tolist,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_samples_of_each_form_are_weighted(data, form):
    network, X, others = data
    expected = NetworkDensity(network).fit(X, sample_weight=COUNTS).score_samples(others)
    density = NetworkDensity(network).fit(form(X), sample_weight=COUNTS)
    np.testing.assert_allclose(density.score_samples(form(others)), expected, rtol=1e-9)


BAD_WEIGHTS = {
    "number": (
        [1] * 9,
        r"must have the shape \(10,\), with one weight per sample; got shape \(9,\)",
    ),
    "axes": (np.ones((10, 2)), r"must have the shape \(10,\).*; got shape \(10, 2\)"),
    "missing": ([np.nan] + [1] * 9, "must have a finite sum; got a sum of nan"),
    "infinite": ([np.inf] + [1] * 9, "must have a finite sum; got a sum of inf"),
    "negative": ([-0.5] + [1] * 9, "must contain no negative number; got -0.5. Pass 0"),
    "zero": ([0] * 10, "must contain a positive number; got only zero weights"),
    "text": (["a"] * 10, "must contain numbers; got other values"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_refused(data, case):
    network, X, _ = data
    with pytest.raises(ValueError, match=f"^`sample_weight` {case[1]}"):
        NetworkDensity(network).fit(X, sample_weight=case[0])


def test_an_untrained_network_is_not_trained_with_weights():
    net = NeuralNetClassifier(nn.Linear(2, 2), criterion=nn.CrossEntropyLoss, verbose=0)
    message = "`sample_weight` must be None if `estimator` is an untrained NeuralNetClassifier"
    with pytest.raises(ValueError, match=message):
        NetworkDensity(net).fit(np.zeros((4, 2)), [0, 1, 0, 1], sample_weight=[1, 2, 1, 1])


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5])
def test_weighted_quantiles_are_those_of_repeated_values(share):
    values = np.random.default_rng(0).normal(size=10).round(1)
    expected = np.percentile(values.repeat(COUNTS), 100 * share)
    assert _compute_quantile(values, share, COUNTS.astype(float)) == pytest.approx(expected)


@pytest.mark.parametrize("weight", [1e-3, 0.5, 1])
def test_equal_weights_up_to_1_give_the_quantiles_of_the_values(weight):
    values = np.random.default_rng(0).normal(size=50)
    expected = np.percentile(values, 10)
    assert _compute_quantile(values, 0.1, np.full(50, weight)) == pytest.approx(expected)


def test_the_quantile_does_not_depend_on_the_order_of_values_of_one_weight():
    values, weights = np.array([3.0, 1, 2, 5, 4]), np.array([0.2, 2.5, 0.7, 1, 1.1])
    order = np.random.default_rng(0).permutation(5)
    assert _compute_quantile(values, 0.3, weights) == _compute_quantile(
        values[order], 0.3, weights[order]
    )


@pytest.mark.filterwarnings("ignore:The scoring")
def test_a_grid_search_divides_the_weights(data):
    network, X, _ = data
    weights = np.arange(1.0, 11)
    density = NetworkDensity(network, method="threshold", dimension=3.0)
    search = GridSearchCV(density, {"threshold": [0.3, 0.6]}, cv=2)
    scores = search.fit(X, sample_weight=weights).cv_results_["split0_test_score"]
    expected = [
        clone(density)
        .set_params(threshold=threshold)
        .fit(X[5:], sample_weight=weights[5:])
        .score(X[:5])
        for threshold in (0.3, 0.6)
    ]
    np.testing.assert_allclose(scores, expected)
    with sklearn.config_context(enable_metadata_routing=True):
        density.set_fit_request(sample_weight=True)
        routed = search.set_params(estimator=density).fit(X, sample_weight=weights)
        np.testing.assert_array_equal(routed.cv_results_["split0_test_score"], scores)


def test_a_pipeline_routes_the_weights(data):
    network, X, others = data
    scaled = StandardScaler().fit(X)
    expected = NetworkDensity(network).fit(scaled.transform(X), sample_weight=COUNTS)
    expected = expected.score_samples(scaled.transform(others))
    pipeline = make_pipeline(StandardScaler(), NetworkDensity(network))
    named = pipeline.fit(X, networkdensity__sample_weight=COUNTS).score_samples(others)
    np.testing.assert_array_equal(named, expected)
    with sklearn.config_context(enable_metadata_routing=True):
        density = NetworkDensity(network).set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        routed = make_pipeline(scaler, density).fit(X, sample_weight=COUNTS)
        np.testing.assert_array_equal(routed.score_samples(others), expected)
        with pytest.raises(ValueError, match="not explicitly set as requested or not"):
            make_pipeline(scaler, NetworkDensity(network)).fit(X, sample_weight=COUNTS)
