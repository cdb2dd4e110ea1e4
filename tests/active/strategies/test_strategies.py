"""Properties of all strategies, and their choices compared with their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknetsim.active.strategies import STRATEGIES, select_greedily

from .naive import NAIVE, choose, make_samples, make_setting, normalize

#: Strategies that draw samples, and those whose definition is tested in the file of their module.
DRAWN = {"badge", "random"}
TESTED_ELSEWHERE = {"entropy", "margin", "typicality"}
GREEDY = sorted(set(STRATEGIES) - {"entropy", "margin", "random"})
every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))


def make_inputs(name, **params):
    return make_samples(unit=STRATEGIES[name].whitening == "unit", **params)


def make_selection(name, pool, labelled, n_queries):
    if STRATEGIES[name].whitening == "unit":
        pool, labelled = (np.nan_to_num(normalize(rows)) for rows in (pool, labelled))
    return STRATEGIES[name](make_setting(pool, labelled, n_queries, threshold="auto"))


def test_every_strategy_has_a_naive_implementation_or_a_test_of_its_own():
    assert set(STRATEGIES) == set(NAIVE) | DRAWN | TESTED_ELSEWHERE


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", sorted(NAIVE))
def test_choices_equal_those_of_the_definition(name, seed):
    # With 12 features, some variance and some uncovered samples are left after all choices.
    pool, labelled = make_inputs(name, seed=seed, n_labelled=2, width=12)
    assert choose(name, pool, labelled, 6) == NAIVE[name](pool, labelled, 6)


@pytest.mark.parametrize("name", sorted(NAIVE))
def test_choices_in_single_precision_equal_those_in_double(name):
    pool, labelled = make_inputs(name, width=30)
    single = choose(name, pool.astype(np.float32), labelled.astype(np.float32))
    assert single == choose(name, pool, labelled)


@st.composite
def pools(draw):
    """Return pool and labelled samples, of which many are equal and some can be 0."""
    generator = np.random.RandomState(draw(st.integers(0, 2**31)))
    kinds = generator.normal(size=(draw(st.integers(1, 4)), 3))
    kinds[0] *= draw(st.sampled_from([0.0, 1.0, 1e-3, 1e3]))
    rows = kinds[generator.randint(len(kinds), size=draw(st.integers(2, 12)))]
    n_labelled = draw(st.integers(1, len(rows) - 1))
    return rows[n_labelled:], rows[:n_labelled]


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@every_strategy
@settings(max_examples=25, deadline=None)
@given(drawn=pools())
def test_each_sample_is_chosen_once_and_utilities_are_finite(name, drawn):
    pool, labelled = drawn
    with np.errstate(invalid="ignore"):
        selection = make_selection(name, pool, labelled, len(pool))
    choices = list(select_greedily(selection, len(pool)))
    assert sorted(index for index, _ in choices) == list(range(len(pool)))
    for number, (_, utilities) in enumerate(choices):
        before = [index for index, _ in choices[:number]]
        assert np.flatnonzero(np.isnan(utilities)).tolist() == sorted(before)
        assert not np.isinf(utilities).any()


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"badge"}))
def test_the_sample_with_the_largest_utility_is_chosen(name):
    choices = list(select_greedily(make_selection(name, *make_samples(), 6), 6))
    assert [index for index, _ in choices] == [int(np.nanargmax(u)) for _, u in choices]


@pytest.mark.parametrize("name", GREEDY)
def test_few_of_many_nearly_equal_samples_are_chosen(name):
    pool, labelled = make_samples(n_pool=60, n_labelled=4, width=20)
    first = next(select_greedily(make_selection(name, pool, labelled, 8), 1))[0]
    noise = np.random.RandomState(1).normal(size=(12, 20))
    pool = np.vstack([pool, pool[first] + 1e-4 * noise])
    choices = select_greedily(make_selection(name, pool, labelled, 8), 8)
    twins = {first, *range(60, 72)}
    assert len(twins & {index for index, _ in choices}) <= 2
