"""Strategies by their definitions, in slow loops in float64, and the samples they are tested on."""

import numpy as np

from sknetsim.active.strategies import STRATEGIES, Setting, select_greedily

NOISE = 1e-6


def normalize(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_setting(pool, labelled, n_queries=6, probabilities=None, **changed):
    """Return the input of a strategy."""
    classes = np.full((len(pool), 3), 1 / 3) if probabilities is None else probabilities
    levels = {"method": "soft", "threshold": 0.4, "alpha": 2.0, **changed}
    generator = np.random.RandomState(0)
    return Setting(pool, labelled, classes, n_queries, **levels, generator=generator)


def make_samples(seed=0, n_pool=40, n_labelled=7, width=5, unit=False):
    """Return features of the pool and of the labelled samples, of length 1 if ``unit``."""
    rows = np.random.RandomState(seed).normal(size=(n_pool + n_labelled, width))
    rows = normalize(rows) if unit else rows
    return rows[:n_pool], rows[n_pool:]


def choose(name, pool, labelled, n_queries=6, **changed):
    """Return the indices that a strategy chooses."""
    selection = STRATEGIES[name](make_setting(pool, labelled, n_queries, **changed))
    return [index for index, _ in select_greedily(selection, n_queries)]


def choose_greedily(utility, pool, n_queries):
    """Choose the sample with the largest ``utility(sample, samples chosen before)`` repeatedly."""
    chosen = []
    for _ in range(n_queries):
        others = [row for row in range(len(pool)) if row not in chosen]
        chosen.append(max(others, key=lambda row: utility(row, chosen)))
    return chosen


def squared_distance(first, second):
    return float(((first - second) ** 2).sum())


def choose_kcenter(pool, labelled, n_queries):
    def utility(row, chosen):
        centers = [*labelled, *pool[chosen]]
        return min(squared_distance(pool[row], center) for center in centers)

    return choose_greedily(utility, pool, n_queries)


def choose_lcmd(pool, labelled, n_queries):
    chosen = []
    for _ in range(n_queries):
        centers = np.array([*labelled, *pool[chosen]])
        distances = np.array([[squared_distance(row, c) for c in centers] for row in pool])
        nearest = distances.argmin(axis=1)
        sizes = [distances[nearest == c, c].sum() for c in range(len(centers))]
        inside = np.flatnonzero(nearest == np.argmax(sizes))
        chosen.append(int(inside[distances[inside].min(axis=1).argmax()]))
    return chosen


def scaled_noise(labelled):
    return NOISE * (labelled**2).sum(axis=1).mean()


def posterior_covariance(rows, noise):
    return np.linalg.inv(np.eye(rows.shape[1]) + rows.T @ rows / noise)


def choose_maxdet(pool, labelled, n_queries):
    noise = scaled_noise(labelled)

    def utility(row, chosen):
        rows = np.array([*labelled, *pool[chosen], pool[row]])
        return np.linalg.slogdet(rows @ rows.T + noise * np.eye(len(rows)))[1]

    return choose_greedily(utility, pool, n_queries)


def choose_bait(pool, labelled, n_queries):
    noise = scaled_noise(labelled)

    def utility(row, chosen):
        covariance = posterior_covariance(np.array([*labelled, *pool[chosen], pool[row]]), noise)
        return -np.trace(covariance @ pool.T @ pool)

    return choose_greedily(utility, pool, n_queries)


def choose_frank_wolfe(pool, labelled, n_queries):
    root = np.linalg.cholesky(posterior_covariance(labelled, scaled_noise(labelled)))
    rows = pool @ root
    lengths = np.linalg.norm(rows, axis=1)
    total, reached, chosen = rows.sum(axis=0), np.zeros(rows.shape[1]), []
    for _ in range(n_queries):
        products = rows @ (total - reached) / lengths
        products[chosen] = -np.inf
        chosen.append(int(products.argmax()))
        vertex = rows[chosen[-1]] * lengths.sum() / lengths[chosen[-1]]
        parts = np.linspace(0, 1, 100_001)[:, None]
        errors = ((total - (1 - parts) * reached - parts * vertex) ** 2).sum(axis=1)
        part = parts[errors.argmin()]
        reached = (1 - part) * reached + part * vertex
    return chosen


def choose_coverage(pool, labelled, n_queries, threshold=0.4):
    near = pool @ pool.T >= threshold
    covered = (pool @ labelled.T >= threshold).any(axis=1)

    def utility(row, chosen):
        left = ~covered & ~near[chosen].any(axis=0)
        return (near[row] & left).sum()

    return choose_greedily(utility, pool, n_queries)


def choose_density(pool, labelled, n_queries):
    def utility(row, chosen):
        return -sum(pool[row] @ other for other in [*labelled, *pool[chosen]])

    return choose_greedily(utility, pool, n_queries)


def choose_reliability(pool, labelled, n_queries):
    def utility(row, chosen):
        others = [*labelled, *pool[chosen]]
        return -sum(pool[row] @ other for other in others) / (pool[row] @ pool[row])

    return choose_greedily(utility, pool, n_queries)


#: Choices by definition, by the name of the strategy.
NAIVE = {
    "bait": choose_bait,
    "coverage": choose_coverage,
    "density": choose_density,
    "frank-wolfe": choose_frank_wolfe,
    "kcenter": choose_kcenter,
    "lcmd": choose_lcmd,
    "maxdet": choose_maxdet,
    "reliability": choose_reliability,
}
