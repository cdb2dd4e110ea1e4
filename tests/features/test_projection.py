"""The error of a kernel, by its definition."""

import itertools
import warnings

import numpy as np
import pytest

from sknetsim._features import projection as _kernel_error
from sknetsim.exceptions import FewerComponentsWarning


@pytest.mark.parametrize("rows", [2, 5])
def test_error_is_the_root_mean_square_over_pairs_of_different_rows(rows):
    difference = np.random.default_rng(0).normal(size=(rows, rows))
    squares = [difference[pair] ** 2 for pair in itertools.permutations(range(rows), 2)]
    assert _kernel_error.off_diagonal_error(difference) == pytest.approx(np.mean(squares) ** 0.5)


def test_error_of_a_single_row_is_zero():
    assert _kernel_error.off_diagonal_error(np.ones((1, 1))) == 0


def test_the_difference_is_left_as_it_was():
    difference = np.ones((3, 3))
    _kernel_error.off_diagonal_error(difference)
    assert (difference == 1).all()


def test_a_missed_error_is_reported_with_both_numbers():
    message = "`kernel_error` 0.01 was not .* 7 features .* error of 0.25. .* or do something"
    with pytest.warns(FewerComponentsWarning, match=message):
        _kernel_error.warn_if_missed(0.25, 0.01, 7, "do something")


def test_a_reached_error_is_not_reported():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _kernel_error.warn_if_missed(0.01, 0.01, 7, "do something")
