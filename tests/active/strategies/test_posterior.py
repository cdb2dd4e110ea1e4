"""Posterior variances and their changes."""

import numpy as np
import pytest

from sknetsim.active.strategies import STRATEGIES

from .naive import choose, make_samples, make_setting, posterior_covariance, scaled_noise


def test_variances_after_a_choice_equal_those_with_it_labelled():
    pool, labelled = make_samples(width=12)
    selection = STRATEGIES["maxdet"](make_setting(pool, labelled))
    for index in (3, 8):
        selection.add(index)
    rows = np.vstack([labelled, pool[[3, 8]]])
    noise = scaled_noise(labelled) * np.eye(len(rows))
    cross = pool @ rows.T
    expected = (pool**2).sum(axis=1) - np.einsum(
        "nz,zn->n", cross, np.linalg.solve(rows @ rows.T + noise, cross.T)
    )
    np.testing.assert_allclose(selection.utilities(), expected, atol=1e-8)


@pytest.mark.parametrize("chosen", [[], [4], [4, 9]], ids=str)
def test_the_utility_of_bait_is_the_decrease_of_the_mean_variance(chosen):
    pool, labelled = make_samples(width=12)
    bait, maxdet = (STRATEGIES[name](make_setting(pool, labelled)) for name in ("bait", "maxdet"))
    for index in chosen:
        bait.add(index)
        maxdet.add(index)
    before, decrease = maxdet.utilities().mean(), bait.utilities()[17]
    maxdet.add(17)
    np.testing.assert_allclose(before - maxdet.utilities().mean(), decrease, rtol=1e-6)


def test_the_utility_of_frank_wolfe_is_the_product_with_the_missing_sum():
    pool, labelled = make_samples(width=12)
    pool[5] = 0
    covariance = posterior_covariance(labelled, scaled_noise(labelled))
    lengths = np.sqrt(np.einsum("nm,mk,nk->n", pool, covariance, pool))
    products = pool @ covariance @ pool.sum(axis=0)
    expected = np.divide(products, lengths, out=np.zeros(len(pool)), where=lengths > 0)
    selection = STRATEGIES["frank-wolfe"](make_setting(pool, labelled))
    np.testing.assert_allclose(selection.utilities(), expected, rtol=1e-8, atol=1e-12)


def test_bait_in_single_precision_does_not_lose_small_directions():
    generator = np.random.RandomState(0)
    rows = generator.normal(size=(330, 64)) * np.arange(1, 65) ** -2.0
    single, double = (
        choose("bait", rows[30:].astype(kind), rows[:30].astype(kind), n_queries=20)
        for kind in (np.float32, np.float64)
    )
    assert len(set(single) & set(double)) >= 18
