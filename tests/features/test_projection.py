"""Errors of features, against their definition, and features by several workers."""

import itertools
import warnings

import joblib
import numpy as np
import pytest

from sknetsim._features.projection import (
    allocate_features,
    compute_features,
    off_diagonal_error,
    warn_if_missed,
)
from sknetsim._features.source import FeatureSource
from sknetsim._networks.samples import Samples
from sknetsim.exceptions import FewerComponentsWarning


@pytest.mark.parametrize("rows", [2, 5])
def test_the_error_is_the_root_mean_square_over_pairs_of_different_rows(rows):
    difference = np.random.default_rng(0).normal(size=(rows, rows))
    squares = [difference[pair] ** 2 for pair in itertools.permutations(range(rows), 2)]
    assert off_diagonal_error(difference) == pytest.approx(np.mean(squares) ** 0.5)


def test_the_error_of_a_single_row_is_zero():
    assert off_diagonal_error(np.ones((1, 1))) == 0


def test_the_difference_is_not_modified():
    difference = np.ones((3, 3))
    off_diagonal_error(difference)
    assert (difference == 1).all()


def test_a_missed_error_gives_a_warning_with_both_numbers():
    message = "`kernel_error` 0.01 was not .* 7 features .* error of 0.25. .* or do something"
    with pytest.warns(FewerComponentsWarning, match=message):
        warn_if_missed(0.25, 0.01, 7, "do something")


def test_a_reached_error_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_missed(0.01, 0.01, 7, "do something")


class Halves:
    """Projection of rows to halves of their entries."""

    n_components = 3

    def transform(self, source, X, verbose=0):
        return X.take(slice(0, len(X))).numpy() / 2


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_features_of_all_workers_are_in_the_order_of_the_samples(n_jobs):
    X = np.random.default_rng(0).normal(size=(20, 3))
    with joblib.parallel_config(backend="threading"):
        features = compute_features(Halves(), FeatureSource(n_jobs=n_jobs), Samples(X))
    np.testing.assert_array_equal(features, X / 2)


def test_features_beyond_the_memory_of_the_machine_raise_an_error():
    message = r"Features of shape \(10000000000, 10000000\) must fit .* `n_components`"
    with pytest.raises(MemoryError, match=message):
        allocate_features(FeatureSource(), 10**10, 10**7)
