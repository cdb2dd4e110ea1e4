"""Coverage of the pool by balls, and typical samples of its clusters."""

import numpy as np

from sknetsim.active.strategies.coverage import _compute_typicality

from .naive import choose, normalize


def test_typicality_takes_one_sample_of_each_cluster_the_largest_first():
    centers = 10 * np.eye(4)
    clusters = np.repeat(range(4), (9, 12, 7, 10))
    pool = centers[clusters] + np.random.RandomState(0).normal(size=(38, 4))
    chosen = choose("typicality", pool, centers[:1], n_queries=3)
    assert clusters[chosen].tolist() == [1, 3, 2]


def test_typicality_takes_the_sample_in_the_densest_place():
    pool = np.array([[0.0], [0.9], [1.0], [1.1], [2.0], [9.0]])
    assert choose("typicality", pool, np.array([[9.0]]), n_queries=1) == [2]


def test_typicality_is_one_over_the_mean_distance_to_the_other_samples():
    np.testing.assert_allclose(
        _compute_typicality(np.array([[0.0], [1.0], [3.0]])), [1 / 2, 1 / 1.5, 1 / 2.5]
    )


def test_typicality_of_single_and_of_equal_samples_is_finite():
    assert _compute_typicality(np.ones((1, 2))).tolist() == [0]
    assert np.isfinite(_compute_typicality(np.ones((3, 2)))).all()


def test_coverage_starts_again_if_all_samples_are_covered():
    pool = normalize(np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0]]))
    chosen = choose("coverage", pool, pool[:1], n_queries=4, threshold=0.5)
    assert chosen[0] == 3
    assert sorted(chosen) == [0, 1, 2, 3]


def test_coverage_takes_one_of_many_equal_samples_if_the_threshold_is_one():
    generator = np.random.RandomState(0)
    for _ in range(6):
        rows = normalize(generator.normal(size=(101, 64))).astype("float32")
        pool = np.concatenate([rows[:100], np.repeat(rows[100:], 80, axis=0)])
        chosen = choose("coverage", pool, rows[:2], n_queries=20, threshold="auto")
        assert sum(index >= 100 for index in chosen) <= 1
