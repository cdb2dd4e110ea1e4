"""Margin, entropy and random choice."""

import numpy as np

from sknetsim.active.strategies import STRATEGIES, select_greedily

from .naive import make_setting


def test_margin_and_entropy_follow_from_the_probabilities():
    probabilities = np.array([[0.5, 0.4, 0.1], [0.4, 0.3, 0.3], [1.0, 0.0, 0.0]])
    pool = np.empty((3, 0))
    margin, entropy = (
        STRATEGIES[name](make_setting(pool, pool[:0], probabilities=probabilities)).utilities()
        for name in ("margin", "entropy")
    )
    np.testing.assert_allclose(margin, [-0.1, -0.1, -1])
    expected = [-sum(p * np.log(p) for p in row if p > 0) for row in probabilities]
    np.testing.assert_allclose(entropy, expected)


def test_margin_and_entropy_of_independent_labels():
    single = np.array([[0.5, 0.9], [0.3, 0.4], [1.0, 0.0]])
    probabilities = np.stack([1 - single, single], axis=2)
    pool = np.empty((3, 0))
    margin, entropy = (
        STRATEGIES[name](make_setting(pool, pool[:0], probabilities=probabilities)).utilities()
        for name in ("margin", "entropy")
    )
    np.testing.assert_allclose(margin, [0, -0.2, -1], atol=1e-12)
    expected = [-sum(q * np.log(q) for p in row for q in (p, 1 - p) if q > 0) for row in single]
    np.testing.assert_allclose(entropy, expected, atol=1e-12)


def test_random_draws_each_sample_equally_often():
    pool = np.empty((5, 0))
    setting = make_setting(pool, pool[:0])
    counts = np.bincount(
        [next(select_greedily(STRATEGIES["random"](setting), 1))[0] for _ in range(5_000)],
        minlength=5,
    )
    assert (np.abs(counts - 1_000) < 5 * np.sqrt(1_000)).all()
