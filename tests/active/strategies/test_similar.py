"""Counts of similar samples, and reliability."""

import numpy as np
import pytest

from sknetsim import NetworkDensity
from sknetsim.active.strategies import STRATEGIES

from .naive import make_samples, make_setting

methods = pytest.mark.parametrize("method", ["soft", "threshold", "power"])


@methods
def test_density_counts_like_network_density(method):
    pool, labelled = make_samples(unit=True)
    density = NetworkDensity("features", method=method, threshold=0.4).fit(labelled)
    selection = STRATEGIES["density"](make_setting(pool, labelled, method=method))
    expected = -density.neighbor_count(pool)
    np.testing.assert_allclose(selection.utilities(), expected, atol=1e-12)


@methods
def test_density_counts_chosen_samples_as_labelled(method):
    pool, labelled = make_samples(unit=True)
    selection = STRATEGIES["density"](make_setting(pool, labelled, method=method))
    selection.add(3)
    joined = np.vstack([labelled, pool[3:4]])
    expected = STRATEGIES["density"](make_setting(pool, joined, method=method)).utilities()
    np.testing.assert_allclose(selection.utilities(), expected, atol=1e-12)


def test_reliability_counts_chosen_samples_as_labelled():
    pool, labelled = make_samples()
    selection = STRATEGIES["reliability"](make_setting(pool, labelled))
    selection.add(3)
    joined = np.vstack([labelled, pool[3:4]])
    expected = -(pool @ joined.T).sum(axis=1) / (pool**2).sum(axis=1)
    np.testing.assert_allclose(selection.utilities(), expected)


def test_the_reliability_of_a_zero_gradient_is_zero():
    pool, labelled = make_samples()
    pool[2] = 0
    assert STRATEGIES["reliability"](make_setting(pool, labelled)).utilities()[2] == 0
