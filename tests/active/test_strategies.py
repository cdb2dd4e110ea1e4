"""Strategies against what their definitions say, written out slowly in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknetsim import NetworkDensity
from sknetsim.active.strategies import STRATEGIES, Setting, select_greedily

NOISE = 1e-6
ONE_BY_ONE = {"entropy", "margin", "random"}
GREEDY = sorted(set(STRATEGIES) - ONE_BY_ONE)
every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def setting(pool, labelled, n_queries=6, probabilities=None, **changed):
    """What a strategy is asked with."""
    classes = np.full((len(pool), 3), 1 / 3) if probabilities is None else probabilities
    levels = {"method": "soft", "threshold": 0.4, "alpha": 2.0, **changed}
    generator = np.random.RandomState(0)
    return Setting(pool, labelled, classes, n_queries, **levels, generator=generator)


def data(seed=0, n_pool=40, n_labelled=7, width=5, dtype=np.float64):
    """Pool and labelled rows of several lengths, and of length 1."""
    rows = np.random.RandomState(seed).normal(size=(n_pool + n_labelled, width)).astype(dtype)
    return rows[:n_pool], rows[n_pool:]


def chosen(name, pool, labelled, n_queries=6, **changed):
    selection = STRATEGIES[name](setting(pool, labelled, n_queries, **changed))
    return [index for index, _ in select_greedily(selection, n_queries)]


def greedily(utility, pool, n_queries):
    """The row of the largest ``utility(row, rows chosen before)``, again and again."""
    found = []
    for _ in range(n_queries):
        others = [row for row in range(len(pool)) if row not in found]
        found.append(max(others, key=lambda row: utility(row, found)))
    return found


# What the strategies choose, by their definitions.


def squared_distance(first, second):
    return float(((first - second) ** 2).sum())


def naive_kcenter(pool, labelled, n_queries):
    def utility(row, found):
        centers = [*labelled, *pool[found]]
        return min(squared_distance(pool[row], center) for center in centers)

    return greedily(utility, pool, n_queries)


def naive_lcmd(pool, labelled, n_queries):
    found = []
    for _ in range(n_queries):
        centers = np.array([*labelled, *pool[found]])
        distances = np.array([[squared_distance(row, c) for c in centers] for row in pool])
        nearest = distances.argmin(axis=1)
        sizes = [distances[nearest == c, c].sum() for c in range(len(centers))]
        inside = np.flatnonzero(nearest == np.argmax(sizes))
        found.append(int(inside[distances[inside].min(axis=1).argmax()]))
    return found


def scaled_noise(labelled):
    return NOISE * (labelled**2).sum(axis=1).mean()


def posterior_covariance(rows, noise):
    return np.linalg.inv(np.eye(rows.shape[1]) + rows.T @ rows / noise)


def naive_maxdet(pool, labelled, n_queries):
    noise = scaled_noise(labelled)

    def utility(row, found):
        rows = np.array([*labelled, *pool[found], pool[row]])
        return np.linalg.slogdet(rows @ rows.T + noise * np.eye(len(rows)))[1]

    return greedily(utility, pool, n_queries)


def naive_bait(pool, labelled, n_queries):
    noise = scaled_noise(labelled)

    def utility(row, found):
        covariance = posterior_covariance(np.array([*labelled, *pool[found], pool[row]]), noise)
        return -np.trace(covariance @ pool.T @ pool)

    return greedily(utility, pool, n_queries)


def naive_frank_wolfe(pool, labelled, n_queries):
    root = np.linalg.cholesky(posterior_covariance(labelled, scaled_noise(labelled)))
    rows = pool @ root
    lengths = np.linalg.norm(rows, axis=1)
    total, reached, found = rows.sum(axis=0), np.zeros(rows.shape[1]), []
    for _ in range(n_queries):
        products = rows @ (total - reached) / lengths
        products[found] = -np.inf
        found.append(int(products.argmax()))
        vertex = rows[found[-1]] * lengths.sum() / lengths[found[-1]]
        parts = np.linspace(0, 1, 100_001)[:, None]
        errors = ((total - (1 - parts) * reached - parts * vertex) ** 2).sum(axis=1)
        part = parts[errors.argmin()]
        reached = (1 - part) * reached + part * vertex
    return found


def naive_coverage(pool, labelled, n_queries, threshold=0.4):
    near = pool @ pool.T >= threshold
    covered = (pool @ labelled.T >= threshold).any(axis=1)

    def utility(row, found):
        left = ~covered & ~near[found].any(axis=0)
        return (near[row] & left).sum()

    return greedily(utility, pool, n_queries)


def naive_density(pool, labelled, n_queries):
    def utility(row, found):
        return -sum(pool[row] @ other for other in [*labelled, *pool[found]])

    return greedily(utility, pool, n_queries)


def naive_reliability(pool, labelled, n_queries):
    def utility(row, found):
        others = [*labelled, *pool[found]]
        return -sum(pool[row] @ other for other in others) / (pool[row] @ pool[row])

    return greedily(utility, pool, n_queries)


NAIVE = {
    "bait": naive_bait,
    "coverage": naive_coverage,
    "density": naive_density,
    "frank-wolfe": naive_frank_wolfe,
    "kcenter": naive_kcenter,
    "lcmd": naive_lcmd,
    "maxdet": naive_maxdet,
    "reliability": naive_reliability,
}
DRAWN = {"badge", "random"}
ELSEWHERE = {"entropy", "margin", "typicality"}


def test_every_strategy_has_a_slow_twin_or_a_test_of_its_own():
    assert set(STRATEGIES) == set(NAIVE) | DRAWN | ELSEWHERE


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", sorted(NAIVE))
def test_choices_are_those_of_the_definition(name, seed):
    # So wide that some variance is left after all choices, and some row uncovered.
    pool, labelled = data(seed, n_labelled=2, width=12)
    if STRATEGIES[name].gradients == "unit":
        pool, labelled = unit(pool), unit(labelled)
    assert chosen(name, pool, labelled, 6) == NAIVE[name](pool, labelled, 6)


@pytest.mark.parametrize("name", sorted(NAIVE))
def test_choices_of_single_precision_are_those_of_double(name):
    pool, labelled = data(width=30)
    if STRATEGIES[name].gradients == "unit":
        pool, labelled = unit(pool), unit(labelled)
    single = chosen(name, pool.astype(np.float32), labelled.astype(np.float32))
    assert single == chosen(name, pool, labelled)


@pytest.mark.parametrize("method", ["soft", "threshold", "power"])
def test_density_counts_as_network_density_does(method):
    pool, labelled = map(unit, data())
    counted = NetworkDensity("features", method=method, threshold=0.4).fit(labelled)
    selection = STRATEGIES["density"](setting(pool, labelled, method=method))
    expected = -counted.neighbor_count(pool)
    np.testing.assert_allclose(selection.utilities(), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["soft", "threshold", "power"])
def test_density_counts_chosen_rows_as_labelled(method):
    pool, labelled = map(unit, data())
    selection = STRATEGIES["density"](setting(pool, labelled, method=method))
    selection.add(3)
    joined = np.vstack([labelled, pool[3:4]])
    expected = STRATEGIES["density"](setting(pool, joined, method=method)).utilities()
    np.testing.assert_allclose(selection.utilities(), expected, atol=1e-12)


def test_variances_after_a_choice_are_those_with_it_labelled():
    pool, labelled = data(width=12)
    selection = STRATEGIES["maxdet"](setting(pool, labelled))
    for index in (3, 8):
        selection.add(index)
    rows = np.vstack([labelled, pool[[3, 8]]])
    noise = scaled_noise(labelled) * np.eye(len(rows))
    cross = pool @ rows.T
    expected = (pool**2).sum(axis=1) - np.einsum(
        "nz,zn->n", cross, np.linalg.solve(rows @ rows.T + noise, cross.T)
    )
    np.testing.assert_allclose(selection.utilities(), expected, atol=1e-8)


def test_bait_says_by_how_much_the_mean_variance_falls():
    pool, labelled = data(width=12)
    bait, maxdet = (STRATEGIES[name](setting(pool, labelled)) for name in ("bait", "maxdet"))
    before, promised = maxdet.utilities().mean(), bait.utilities()[4]
    maxdet.add(4)
    np.testing.assert_allclose(before - maxdet.utilities().mean(), promised, rtol=1e-6)


def test_typicality_takes_one_row_of_each_cluster_the_largest_first():
    centers = 10 * np.eye(4)
    clusters = np.repeat(range(4), (9, 12, 7, 10))
    pool = centers[clusters] + np.random.RandomState(0).normal(size=(38, 4))
    found = chosen("typicality", pool, centers[:1], n_queries=3)
    assert clusters[found].tolist() == [1, 3, 2]


def test_typicality_takes_the_row_in_the_densest_place():
    pool = np.array([[0.0], [0.9], [1.0], [1.1], [2.0], [9.0]])
    assert chosen("typicality", pool, np.array([[9.0]]), n_queries=1) == [2]


@pytest.mark.parametrize("seed", range(20))
def test_badge_draws_rows_of_no_length_last(seed):
    pool = np.zeros((6, 3))
    pool[[1, 4]] = np.eye(3)[:2]
    selection = STRATEGIES["badge"](setting(pool, pool[:0]))
    selection.generator = np.random.RandomState(seed)
    found = [index for index, _ in select_greedily(selection, 6)]
    assert set(found[:2]) == {1, 4}
    assert sorted(found) == list(range(6))


def test_badge_draws_in_proportion_to_squared_lengths():
    pool = np.diag([1.0, 2.0, 3.0])
    selection = STRATEGIES["badge"](setting(pool, pool[:0]))
    counts = np.bincount([selection.choose(selection.utilities()) for _ in range(5_000)])
    expected = 5_000 * np.array([1, 4, 9]) / 14
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_margin_and_entropy_of_probabilities():
    probabilities = np.array([[0.5, 0.4, 0.1], [0.4, 0.3, 0.3], [1.0, 0.0, 0.0]])
    pool = np.empty((3, 0))
    margin, entropy = (
        STRATEGIES[name](setting(pool, pool[:0], probabilities=probabilities)).utilities()
        for name in ("margin", "entropy")
    )
    np.testing.assert_allclose(margin, [-0.1, -0.1, -1])
    expected = [-sum(p * np.log(p) for p in row if p > 0) for row in probabilities]
    np.testing.assert_allclose(entropy, expected)


def test_random_draws_each_row_equally_often():
    pool = np.empty((5, 0))
    asked = setting(pool, pool[:0])
    counts = np.bincount(
        [next(select_greedily(STRATEGIES["random"](asked), 1))[0] for _ in range(5_000)],
        minlength=5,
    )
    assert (np.abs(counts - 1_000) < 5 * np.sqrt(1_000)).all()


# Properties of all.


def build(name, pool, labelled, n_queries):
    if STRATEGIES[name].gradients == "unit":
        pool, labelled = (np.nan_to_num(unit(rows)) for rows in (pool, labelled))
    return STRATEGIES[name](setting(pool, labelled, n_queries, threshold="auto"))


@st.composite
def pools(draw):
    """Pool and labelled rows, many of them equal, some of no length."""
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
def test_each_row_is_chosen_once_and_utilities_are_numbers(name, drawn):
    pool, labelled = drawn
    with np.errstate(invalid="ignore"):
        selection = build(name, pool, labelled, len(pool))
    found = list(select_greedily(selection, len(pool)))
    assert sorted(index for index, _ in found) == list(range(len(pool)))
    for number, (_, utilities) in enumerate(found):
        before = [index for index, _ in found[:number]]
        assert np.flatnonzero(np.isnan(utilities)).tolist() == sorted(before)
        assert not np.isinf(utilities).any()


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"badge"}))
def test_the_row_of_the_largest_utility_is_chosen(name):
    found = list(select_greedily(build(name, *data(), 6), 6))
    assert [index for index, _ in found] == [int(np.nanargmax(u)) for _, u in found]


@pytest.mark.parametrize("name", GREEDY)
def test_of_nearly_equal_rows_few_are_chosen(name):
    pool, labelled = data(n_pool=60, n_labelled=4, width=20)
    first = next(select_greedily(build(name, pool, labelled, 8), 1))[0]
    noise = np.random.RandomState(1).normal(size=(12, 20))
    pool = np.vstack([pool, pool[first] + 1e-4 * noise])
    found = [index for index, _ in select_greedily(build(name, pool, labelled, 8), 8)]
    twins = {first, *range(60, 72)}
    assert len(twins & set(found)) <= 2


@pytest.mark.parametrize("labelled", [1, 7])
def test_balls_of_the_automatic_threshold_hold_the_pool_once(labelled):
    pool, others = map(unit, data(n_pool=400, n_labelled=labelled, width=3))
    asked = setting(pool, others, n_queries=13, threshold="auto")
    near = pool @ pool.T >= asked.least_similarity(pool, labelled + 13)
    inside = (near.sum() - 400) / (400 * 399)
    np.testing.assert_allclose(inside * (labelled + 13), 1, rtol=0.01)


def test_coverage_begins_anew_where_all_is_covered():
    pool = unit(np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0]]))
    found = chosen("coverage", pool, pool[:1], n_queries=4, threshold=0.5)
    assert found[0] == 3
    assert sorted(found) == [0, 1, 2, 3]


def test_coverage_does_not_take_twins_where_the_threshold_is_one():
    generator = np.random.RandomState(0)
    for _ in range(6):
        rows = unit(generator.normal(size=(101, 64))).astype("float32")
        pool = np.concatenate([rows[:100], np.repeat(rows[100:], 80, axis=0)])
        found = chosen("coverage", pool, rows[:2], n_queries=20, threshold="auto")
        assert sum(index >= 100 for index in found) <= 1


def test_bait_of_single_precision_sees_small_directions():
    generator = np.random.RandomState(0)
    rows = generator.normal(size=(330, 64)) * np.arange(1, 65) ** -2.0
    single, double = (
        chosen("bait", rows[30:].astype(kind), rows[:30].astype(kind), n_queries=20)
        for kind in (np.float32, np.float64)
    )
    assert len(set(single) & set(double)) >= 18
