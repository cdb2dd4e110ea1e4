"""Rows of each kind in every estimator.

Each result equals that of the same rows after the steps, which are applied by hand.
"""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sknetsim import (
    ActiveLearningSampler,
    FitDiagnostics,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    explore,
    featurize,
)

from .kinds import ALL_KINDS, ROWS, take_prepared, to_dense

pytestmark = pytest.mark.usefixtures("threads")

CALLS = {
    "neighbours": lambda net, X, Q, y: NetworkNeighbors(net).fit(X).kneighbors(Q)[0],
    "neighbours of fitted samples": lambda net, X, Q, y: NetworkNeighbors(net).fit(X).kneighbors(),
    "neighbours by features": lambda net, X, Q, y: (
        NetworkNeighbors(net, n_components=8, random_state=0).fit(X).kneighbors(Q)[0]
    ),
    "density": lambda net, X, Q, y: NetworkDensity(net).fit(X).score_samples(Q),
    "density of fitted samples": lambda net, X, Q, y: NetworkDensity(net).fit(X).score_samples(X),
    "power density": lambda net, X, Q, y: (
        NetworkDensity(net, method="power").fit(X).score_samples(Q)
    ),
    "outliers": lambda net, X, Q, y: NetworkDensity(net, contamination=0.2).fit(X).predict(Q),
    "features": lambda net, X, Q, y: (
        GradientFeaturizer(net, n_components=8, random_state=0).fit(X).transform(Q)
    ),
    "queries": lambda net, X, Q, y: (
        ActiveLearningSampler(net, random_state=0).fit(Q).query(X, 4, return_utilities=True)[1]
    ),
    "queries after partial_fit": lambda net, X, Q, y: (
        ActiveLearningSampler(net, strategy="badge", random_state=0)
        .fit(Q)
        .partial_fit(Q)
        .query(X, 4)
    ),
    "label quality": lambda net, X, Q, y: LabelDenoiser(net).fit(X, y).label_quality(X, y),
    "label issues": lambda net, X, Q, y: LabelDenoiser(net).fit(X, y).transform(Q),
    "diagnostics": lambda net, X, Q, y: list(FitDiagnostics(net).fit(X, y).summary().values()),
    "gram": lambda net, X, Q, y: NetworkKernel(net)(X, Q),
    "kernel as a transformer": lambda net, X, Q, y: NetworkKernel(net).fit(X).transform(Q),
    "perceptual kernel": lambda net, X, Q, y: PerceptualKernel(net)(X, Q),
    "contributions": lambda net, X, Q, y: NetworkKernel(net).contributions(Q, Q).similarity,
    "workers": lambda net, X, Q, y: NetworkDensity(net, n_jobs=2).fit(X).score_samples(Q),
}


#: Calls of each estimator. They pass rows through the same methods, so each kind of rows runs one
#: call of each estimator, in turn.
CALLS_OF_ESTIMATORS = [
    ["neighbours", "neighbours of fitted samples", "neighbours by features"],
    ["density", "density of fitted samples", "power density", "outliers", "workers"],
    ["features"],
    ["queries", "queries after partial_fit"],
    ["label quality", "label issues"],
    ["diagnostics"],
    ["gram", "kernel as a transformer", "contributions"],
    ["perceptual kernel"],
]
PAIRS = [
    (kind, calls[number % len(calls)])
    for number, kind in enumerate(ALL_KINDS)
    for calls in CALLS_OF_ESTIMATORS
]


def test_each_call_is_run():
    assert {name for _, name in PAIRS} == set(CALLS)


@pytest.mark.parametrize(("any_example", "name"), PAIRS, indirect=["any_example"], scope="module")
@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_raw_rows_give_the_results_of_prepared_rows(any_example, name):
    example, call = any_example, CALLS[name]
    queries = example.kind.take(example.X, ROWS)
    prepared = take_prepared(example.prepared, ROWS)
    expected = call(example.network, to_dense(example.prepared), to_dense(prepared), example.y)
    result = call(example.pipeline, example.X, queries, example.y)
    np.testing.assert_allclose(np.asarray(result), np.asarray(expected), atol=1e-6)


def test_raw_rows_pass_through_a_frozen_estimator(any_example):
    frozen = FrozenEstimator(any_example.pipeline)
    expected = NetworkKernel(any_example.pipeline)(any_example.X)
    np.testing.assert_allclose(NetworkKernel(frozen)(any_example.X), expected, atol=1e-6)


def test_raw_rows_are_written_to_a_store(any_example, tmp_path):
    featurizer = GradientFeaturizer(any_example.pipeline, n_components=8, random_state=0)
    featurizer.fit(any_example.X)
    store = featurize(featurizer, any_example.X, tmp_path / "store", rows_per_shard=10)
    np.testing.assert_allclose(store[:], featurizer.transform(any_example.X), atol=1e-4)


def test_raw_rows_are_shown_by_the_explorer(any_example, tmp_path):
    path = tmp_path / "page.html"
    explore(any_example.pipeline, any_example.X, any_example.y, path, n_neighbors=3)
    assert path.stat().st_size > 1000


def test_an_untrained_network_is_trained_on_raw_rows(any_example):
    density = NetworkDensity(clone(any_example.pipeline)).fit(any_example.X, any_example.y)
    assert np.isfinite(density.score_samples(any_example.X)).all()
