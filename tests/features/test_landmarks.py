"""Randomly pivoted Cholesky against projections written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknetsim._features import landmarks as _landmarks

EPS = np.finfo(np.float64).eps


def gram_of(vectors):
    return vectors @ vectors.T


def directions(count, width, seed=0):
    """Unit vectors, so that each row is in one piece as similar to itself as can be."""
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def draw(gram, candidates=None, held_out=None, limit=None, kernel_error=-1.0, seed=0, eps=EPS):
    candidates = len(gram) if candidates is None else candidates
    held_out = np.arange(len(gram)) if held_out is None else held_out
    limit = len(gram) if limit is None else limit
    generator = seed if hasattr(seed, "choice") else np.random.RandomState(seed)
    return _landmarks.draw_landmarks(
        gram, candidates, held_out, limit, kernel_error, eps, generator
    )


def uncovered(gram, landmarks):
    """K - K(., Z) K(Z, Z)^+ K(Z, .)."""
    inverse = np.linalg.pinv(gram[np.ix_(landmarks, landmarks)], hermitian=True)
    return gram - gram[:, landmarks] @ inverse @ gram[landmarks]


def naive_error(difference):
    return np.sqrt(np.mean(difference[~np.eye(len(difference), dtype=bool)] ** 2))


def test_errors_are_those_of_the_projections_after_each_landmark():
    gram, held_out = gram_of(directions(20, 12)), np.arange(14, 20)
    pivots = draw(gram, candidates=14, held_out=held_out)
    prefixes = [pivots.indices[: step + 1] for step in range(len(pivots.indices))]
    expected = [
        naive_error(uncovered(gram, prefix)[np.ix_(held_out, held_out)]) for prefix in prefixes
    ]
    np.testing.assert_allclose(pivots.errors, expected, atol=1e-10)


class Recorder:
    """Draws the least probable candidate that can be drawn, and remembers the probabilities."""

    def __init__(self):
        self.seen = []

    def choice(self, count, p):
        self.seen.append(p)
        return np.argmin(np.where(p > 0, p, np.inf))


def test_landmarks_are_drawn_in_proportion_to_what_is_not_covered():
    gram, recorder = gram_of(directions(12, 8)), Recorder()
    pivots = draw(gram, candidates=9, limit=5, seed=recorder)
    for step, probabilities in enumerate(recorder.seen):
        left = uncovered(gram, pivots.indices[:step]).diagonal()[:9]
        np.testing.assert_allclose(probabilities, left / left.sum(), atol=1e-10)


@st.composite
def grams(draw_):
    """Similarities of vectors of low rank, some of them equal, opposite or zero.

    Their entries are whole numbers before they are normalised, so that none is nearly spanned.
    """
    entries = st.lists(st.integers(-1, 1), min_size=4, max_size=4)
    vectors = np.array(draw_(st.lists(entries, min_size=1, max_size=12).filter(np.any)))
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
    return gram_of(vectors / lengths), np.linalg.matrix_rank(vectors)


@settings(max_examples=60, deadline=None)
@given(grams(), st.integers(0, 2**31))
def test_as_many_are_drawn_as_span_all(drawn, seed):
    gram, rank = drawn
    assert len(draw(gram, seed=seed).indices) == rank


@settings(max_examples=60, deadline=None)
@given(grams(), st.integers(0, 2**31))
def test_neither_a_zero_nor_an_equal_or_opposite_row_is_drawn(drawn, seed):
    gram, _ = drawn
    indices = draw(gram, seed=seed).indices
    between = gram[np.ix_(indices, indices)]
    np.testing.assert_allclose(between.diagonal(), 1)
    assert (np.abs(between[~np.eye(len(between), dtype=bool)]) < 1 - 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(grams(), st.integers(0, 2**31))
def test_rows_that_are_spanned_have_no_error_left(drawn, seed):
    gram, _ = drawn
    assert draw(gram, seed=seed).errors[-1] < 1e-6


@pytest.mark.parametrize("noise", [1e-16, 1e-15])
def test_noise_of_rounding_gives_no_nan(noise):
    """Far more candidates than directions: the last residuals are nothing but rounding."""
    for seed in range(20):
        gram = gram_of(directions(200, 30, seed))
        gram += noise * np.random.default_rng(seed).normal(size=gram.shape)
        pivots = draw((gram + gram.T) / 2, seed=seed)
        assert np.isfinite(pivots.errors).all()


def test_none_is_drawn_where_all_are_zero():
    assert draw(np.zeros((4, 4))).indices == []


@pytest.mark.parametrize("seed", range(5))
def test_none_is_drawn_twice_though_rounding_counts_as_not_covered(seed):
    vectors = np.vstack([directions(12, 20, seed), np.zeros((1, 20))])
    assert sorted(draw(gram_of(vectors), seed=seed, eps=0.0).indices) == list(range(12))


def test_no_more_than_the_limit_are_drawn():
    assert len(draw(gram_of(directions(12, 8)), limit=3).indices) == 3


def test_only_candidates_are_drawn():
    assert max(draw(gram_of(directions(12, 8)), candidates=5).indices) < 5


def test_drawing_stops_at_the_first_error_that_is_small_enough():
    gram = gram_of(directions(30, 20))
    wanted = draw(gram).errors[6]
    errors = draw(gram, kernel_error=wanted).errors
    assert errors[-1] <= wanted < min(errors[:-1])


def test_the_gram_is_left_as_it_was():
    gram = gram_of(directions(8, 4))
    before = gram.copy()
    draw(gram)
    np.testing.assert_array_equal(gram, before)
