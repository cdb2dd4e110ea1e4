"""Queries of scikit-activeml and modAL with each kind of rows that a Pipeline takes."""

import types

import numpy as np
import pytest
from sklearn.base import clone

from sknetsim import ActiveLearningSampler

from ..test_kinds_of_rows import ROWS, example, threads  # noqa: F401 (fixtures)

STRATEGIES = ["lcmd", "badge", "random"]


def make_sampler(estimator, strategy):
    return ActiveLearningSampler(estimator, strategy=strategy, random_state=0)


def hide_labels(example):  # noqa: F811
    """Return the labels with NaN for the samples of the pool, and the positions of the pool."""
    y = example.y.astype(float)
    pool = np.arange(8, len(y))
    y[pool] = np.nan
    return y, pool


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_modal_queries_raw_rows(example, strategy):  # noqa: F811
    labelled = example.kind.take(example.X, ROWS)
    learner = types.SimpleNamespace(estimator=example.pipeline, X_training=labelled)
    sampler = make_sampler(None, strategy)
    indices, utilities = sampler(learner, example.X, n_instances=4)
    fitted = make_sampler(example.pipeline, strategy).fit(labelled)
    expected = fitted.query(example.X, 4, return_utilities=True)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_array_equal(utilities, expected[1])


@pytest.fixture
def adapt():
    pytest.importorskip("skactiveml", reason="scikit-activeml is not installed")
    from sknetsim.adapters import to_skactiveml

    return to_skactiveml


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scikit_activeml_queries_raw_rows(example, strategy, adapt):  # noqa: F811
    y, pool = hide_labels(example)
    sampler = make_sampler(example.pipeline, strategy)
    labelled = example.kind.take(example.X, range(8))
    rows = example.kind.take(example.X, pool.tolist())
    expected, utilities = sampler.fit(labelled).query(rows, 3, return_utilities=True)
    adapted = adapt(make_sampler(example.pipeline, strategy))
    indices, all_utilities = adapted.query(example.X, y, batch_size=3, return_utilities=True)
    np.testing.assert_array_equal(indices, pool[expected])
    np.testing.assert_array_equal(all_utilities[:, pool], utilities)
    assert np.isnan(all_utilities[:, :8]).all()


def test_scikit_activeml_trains_a_pipeline_on_raw_rows(example, adapt):  # noqa: F811
    y, pool = hide_labels(example)
    adapted = adapt(make_sampler(clone(example.pipeline), "lcmd"))
    assert set(adapted.query(example.X, y, batch_size=3)) <= set(pool)


def test_candidates_of_scikit_activeml_may_be_raw_rows(example, adapt):  # noqa: F811
    y, _ = hide_labels(example)
    adapted = adapt(make_sampler(example.pipeline, "lcmd"))
    chosen = [9, 15, 21, 12, 10]
    positions = adapted.query(example.X, y, candidates=np.array(chosen), batch_size=3)
    rows = example.kind.take(example.X, chosen)
    indices = adapted.query(example.X, y, candidates=rows, batch_size=3)
    np.testing.assert_array_equal(np.array(chosen)[indices], positions)
