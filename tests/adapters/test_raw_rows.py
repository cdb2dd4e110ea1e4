"""Queries of scikit-activeml and modAL with each kind of rows that a Pipeline takes."""

import types

import numpy as np
import pytest
from sklearn.base import clone

from sknetsim import ActiveLearningSampler

from ..kinds import (
    ROWS,
)

pytestmark = pytest.mark.usefixtures("threads")

STRATEGIES = ["lcmd", "badge", "random"]


def make_sampler(estimator, strategy):
    return ActiveLearningSampler(estimator, strategy=strategy, random_state=0)


def hide_labels(any_example):
    """Return the labels with NaN for the samples of the pool, and the positions of the pool."""
    y = any_example.y.astype(float)
    pool = np.arange(8, len(y))
    y[pool] = np.nan
    return y, pool


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_modal_queries_raw_rows(any_example, strategy):
    labelled = any_example.kind.take(any_example.X, ROWS)
    learner = types.SimpleNamespace(estimator=any_example.pipeline, X_training=labelled)
    sampler = make_sampler(None, strategy)
    indices, utilities = sampler(learner, any_example.X, n_instances=4)
    fitted = make_sampler(any_example.pipeline, strategy).fit(labelled)
    expected = fitted.query(any_example.X, 4, return_utilities=True)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_array_equal(utilities, expected[1])


@pytest.fixture
def adapt():
    pytest.importorskip("skactiveml", reason="scikit-activeml is not installed")
    from sknetsim.adapters import to_skactiveml

    return to_skactiveml


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scikit_activeml_queries_raw_rows(any_example, strategy, adapt):
    y, pool = hide_labels(any_example)
    sampler = make_sampler(any_example.pipeline, strategy)
    labelled = any_example.kind.take(any_example.X, range(8))
    rows = any_example.kind.take(any_example.X, pool.tolist())
    expected, utilities = sampler.fit(labelled).query(rows, 3, return_utilities=True)
    adapted = adapt(make_sampler(any_example.pipeline, strategy))
    indices, all_utilities = adapted.query(any_example.X, y, batch_size=3, return_utilities=True)
    np.testing.assert_array_equal(indices, pool[expected])
    np.testing.assert_array_equal(all_utilities[:, pool], utilities)
    assert np.isnan(all_utilities[:, :8]).all()


def test_scikit_activeml_trains_a_pipeline_on_raw_rows(any_example, adapt):
    y, pool = hide_labels(any_example)
    adapted = adapt(make_sampler(clone(any_example.pipeline), "lcmd"))
    assert set(adapted.query(any_example.X, y, batch_size=3)) <= set(pool)


def test_candidates_of_scikit_activeml_may_be_raw_rows(any_example, adapt):
    y, _ = hide_labels(any_example)
    adapted = adapt(make_sampler(any_example.pipeline, "lcmd"))
    chosen = [9, 15, 21, 12, 10]
    positions = adapted.query(any_example.X, y, candidates=np.array(chosen), batch_size=3)
    rows = any_example.kind.take(any_example.X, chosen)
    indices = adapted.query(any_example.X, y, candidates=rows, batch_size=3)
    np.testing.assert_array_equal(np.array(chosen)[indices], positions)
