"""Randomly pivoted Cholesky decomposition, against projections written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknetsim._features.landmarks import draw_landmarks

EPS = np.finfo(np.float64).eps


def compute_gram(vectors):
    return vectors @ vectors.T


def draw_directions(count, width, seed=0):
    """Draw unit vectors, so that each row has similarity 1 with itself."""
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def draw(gram, candidates=None, held_out=None, limit=None, kernel_error=-1.0, seed=0, eps=EPS):
    candidates = len(gram) if candidates is None else candidates
    held_out = np.arange(len(gram)) if held_out is None else held_out
    limit = len(gram) if limit is None else limit
    generator = seed if hasattr(seed, "choice") else np.random.RandomState(seed)
    return draw_landmarks(gram, candidates, held_out, limit, kernel_error, eps, generator)


def compute_residual(gram, landmarks):
    """Return K - K(., Z) K(Z, Z)^+ K(Z, .)."""
    inverse = np.linalg.pinv(gram[np.ix_(landmarks, landmarks)], hermitian=True)
    return gram - gram[:, landmarks] @ inverse @ gram[landmarks]


def naive_error(difference):
    return np.sqrt(np.mean(difference[~np.eye(len(difference), dtype=bool)] ** 2))


def test_errors_are_those_of_the_projections_after_each_landmark():
    gram, held_out = compute_gram(draw_directions(20, 12)), np.arange(14, 20)
    pivots = draw(gram, candidates=14, held_out=held_out)
    prefixes = [pivots.indices[: step + 1] for step in range(len(pivots.indices))]
    expected = [
        naive_error(compute_residual(gram, prefix)[np.ix_(held_out, held_out)])
        for prefix in prefixes
    ]
    np.testing.assert_allclose(pivots.errors, expected, atol=1e-10)


class Recorder:
    """Generator that draws the least probable candidate and records the probabilities."""

    def __init__(self):
        self.seen = []

    def choice(self, count, p):
        self.seen.append(p)
        return np.argmin(np.where(p > 0, p, np.inf))


def test_landmarks_are_drawn_in_proportion_to_the_residual():
    gram, recorder = compute_gram(draw_directions(12, 8)), Recorder()
    pivots = draw(gram, candidates=9, limit=5, seed=recorder)
    for step, probabilities in enumerate(recorder.seen):
        left = compute_residual(gram, pivots.indices[:step]).diagonal()[:9]
        np.testing.assert_allclose(probabilities, left / left.sum(), atol=1e-10)


@st.composite
def grams(draw_):
    """Draw similarities of vectors of low rank, some of them equal, opposite or zero.

    Their entries are integers before they are normalised, so that no vector is nearly spanned.
    """
    entries = st.lists(st.integers(-1, 1), min_size=4, max_size=4)
    vectors = np.array(draw_(st.lists(entries, min_size=1, max_size=12).filter(np.any)))
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
    return compute_gram(vectors / lengths), np.linalg.matrix_rank(vectors)


@settings(max_examples=60, deadline=None)
@given(grams(), st.integers(0, 2**31))
def test_the_number_of_landmarks_is_the_rank(drawn, seed):
    gram, rank = drawn
    assert len(draw(gram, seed=seed).indices) == rank


@settings(max_examples=60, deadline=None)
@given(grams(), st.integers(0, 2**31))
def test_zero_equal_and_opposite_rows_are_never_drawn(drawn, seed):
    gram, _ = drawn
    indices = draw(gram, seed=seed).indices
    between = gram[np.ix_(indices, indices)]
    np.testing.assert_allclose(between.diagonal(), 1)
    assert (np.abs(between[~np.eye(len(between), dtype=bool)]) < 1 - 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(grams(), st.integers(0, 2**31))
def test_the_error_vanishes_if_all_rows_are_spanned(drawn, seed):
    gram, _ = drawn
    assert draw(gram, seed=seed).errors[-1] < 1e-6


@pytest.mark.parametrize("noise", [1e-16, 1e-15])
def test_rounding_gives_no_nan(noise):
    """With far more candidates than directions, the last residuals are rounding."""
    for seed in range(20):
        gram = compute_gram(draw_directions(200, 30, seed))
        gram += noise * np.random.default_rng(seed).normal(size=gram.shape)
        pivots = draw((gram + gram.T) / 2, seed=seed)
        assert np.isfinite(pivots.errors).all()


def test_no_landmark_is_drawn_if_all_similarities_are_zero():
    assert draw(np.zeros((4, 4))).indices == []


@pytest.mark.parametrize("seed", range(5))
def test_no_landmark_is_drawn_twice_even_if_rounding_is_not_dropped(seed):
    vectors = np.vstack([draw_directions(12, 20, seed), np.zeros((1, 20))])
    assert sorted(draw(compute_gram(vectors), seed=seed, eps=0.0).indices) == list(range(12))


def test_at_most_the_limit_is_drawn():
    assert len(draw(compute_gram(draw_directions(12, 8)), limit=3).indices) == 3


def test_only_candidates_are_drawn():
    assert max(draw(compute_gram(draw_directions(12, 8)), candidates=5).indices) < 5


def test_drawing_stops_at_the_first_error_that_is_small_enough():
    gram = compute_gram(draw_directions(30, 20))
    wanted = draw(gram).errors[6]
    errors = draw(gram, kernel_error=wanted).errors
    assert errors[-1] <= wanted < min(errors[:-1])


def test_the_gram_matrix_is_not_modified():
    gram = compute_gram(draw_directions(8, 4))
    before = gram.copy()
    draw(gram)
    np.testing.assert_array_equal(gram, before)
