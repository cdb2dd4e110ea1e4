"""Reductions over all pairs, by one worker or several, against double loops."""

import joblib
import numpy as np
import pytest

from sknetsim._networks.samples import Samples
from sknetsim._passes.reductions import _make_rectangles, compute_pair_matrix, gram_matrix

from .. import naive

EPS = np.finfo(np.float64).eps

workers = pytest.mark.parametrize("n_jobs", [1, 2, 3])


def compute_grams(rows, columns):
    return rows.jacobian.gram(columns.jacobian)


@workers
@pytest.mark.parametrize("others", [None, slice(0, 3), slice(0, 20)], ids=str)
@pytest.mark.parametrize("queries", [slice(0, 20), slice(0, 5)], ids=str)
def test_the_gram_matrix_is_that_of_a_double_loop(mlp, n_jobs, queries, others):
    network, X, engine = mlp
    engine.n_jobs = n_jobs
    J = naive.jacobians(network, X)
    rows, columns = J[queries], J[queries if others is None else others]
    Y = None if others is None else Samples(X[others])
    with joblib.parallel_config(backend="threading"):
        gram = gram_matrix(engine, Samples(X[queries]), Y)
    np.testing.assert_allclose(gram, naive.correlation(rows, columns, EPS), atol=1e-8)


@workers
@pytest.mark.parametrize("symmetric", [True, False])
def test_kernels_of_all_pairs_are_those_of_a_double_loop(mlp, n_jobs, symmetric):
    network, X, engine = mlp
    engine.n_jobs = n_jobs
    J = naive.jacobians(network, X)
    Y = None if symmetric else Samples(X[:7])
    with joblib.parallel_config(backend="threading"):
        kernels = compute_pair_matrix(engine, Samples(X), Y, ("none", "none"), compute_grams)
    np.testing.assert_allclose(kernels, naive.kernel(J, J if symmetric else J[:7]), atol=1e-8)


@pytest.mark.parametrize("jobs", [2, 3, 8])
@pytest.mark.parametrize(
    ("samples", "others", "symmetric"), [(20, 20, True), (20, 7, False), (7, 20, False)]
)
def test_blocks_cover_all_pairs_once_and_count_each_row_once(jobs, samples, others, symmetric):
    covered, counted = np.zeros((samples, others)), np.zeros(samples)
    for rectangle in _make_rectangles(samples, others, jobs, symmetric):
        before = covered.sum()
        covered[rectangle.rows, rectangle.columns] += 1
        if rectangle.mirrored:
            covered[rectangle.columns, rectangle.rows] += 1
        counted[rectangle.rows] += rectangle.counted
        assert covered.sum() - before == rectangle.pairs
        assert rectangle.within == (symmetric and rectangle.rows == rectangle.columns)
    assert (covered == 1).all() and (counted == 1).all()
