"""Nearest centres, and draws in proportion to squared distances."""

import numpy as np
import pytest

from sknetsim.active.strategies import STRATEGIES, select_greedily
from sknetsim.active.strategies.distances import find_nearest_centers, squared_norms

from .naive import make_samples, make_setting


def test_nearest_centres_equal_those_of_all_pairs():
    pool, centers = make_samples()
    distances = ((pool[:, None] - centers) ** 2).sum(axis=2)
    squares, nearest = find_nearest_centers(pool, centers)
    np.testing.assert_allclose(squares, distances.min(axis=1))
    np.testing.assert_array_equal(nearest, distances.argmin(axis=1))
    np.testing.assert_allclose(squared_norms(pool), (pool**2).sum(axis=1))


def test_the_distance_of_a_centre_to_itself_is_not_negative():
    pool = 1000 + np.random.RandomState(0).normal(size=(50, 3)).astype("float32")
    squares, _ = find_nearest_centers(pool, pool)
    assert (squares >= 0).all()


@pytest.mark.parametrize("name", ["kcenter", "lcmd"])
def test_distances_after_a_choice_equal_those_with_it_labelled(name):
    pool, labelled = make_samples()
    selection = STRATEGIES[name](make_setting(pool, labelled))
    selection.add(3)
    joined = STRATEGIES[name](make_setting(pool, np.vstack([labelled, pool[3:4]])))
    np.testing.assert_allclose(selection.utilities(), joined.utilities(), atol=1e-12)


def test_lcmd_has_negative_utilities_outside_the_largest_cluster():
    pool = np.array([[0.0], [1.0], [10.0], [13.0]])
    utilities = STRATEGIES["lcmd"](make_setting(pool, np.array([[0.0], [10.0]]))).utilities()
    np.testing.assert_allclose(utilities, [-10, -9, 0, 9])


@pytest.mark.parametrize("seed", range(20))
def test_badge_draws_samples_of_length_zero_last(seed):
    pool = np.zeros((6, 3))
    pool[[1, 4]] = np.eye(3)[:2]
    selection = STRATEGIES["badge"](make_setting(pool, pool[:0]))
    selection.generator = np.random.RandomState(seed)
    chosen = [index for index, _ in select_greedily(selection, 6)]
    assert set(chosen[:2]) == {1, 4}
    assert sorted(chosen) == list(range(6))


def test_badge_draws_in_proportion_to_squared_lengths():
    pool = np.diag([1.0, 2.0, 3.0])
    selection = STRATEGIES["badge"](make_setting(pool, pool[:0]))
    counts = np.bincount([selection.choose(selection.utilities()) for _ in range(5_000)])
    expected = 5_000 * np.array([1, 4, 9]) / 14
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_badge_uses_the_smaller_of_squared_length_and_squared_distance():
    pool = np.array([[3.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
    selection = STRATEGIES["badge"](make_setting(pool, pool[:0]))
    selection.add(0)
    np.testing.assert_allclose(selection.utilities(), [0, 1, 4])
