"""Sums over fitted samples, against loops over all pairs."""

import pickle

import numpy as np
import pytest
import torch

from sknetsim._networks.samples import Samples
from sknetsim._passes.chunks import iterate_chunks
from sknetsim._passes.reductions import compute_pair_matrix
from sknetsim._passes.sums import (
    PairSums,
    kernel_sums,
    linear_sums,
    pair_sums,
    sum_and_measure,
    sum_jacobians,
)

from .. import naive


def compute_grams(rows, columns):
    return rows.jacobian.gram(columns.jacobian)


def compute_traces(rows, columns):
    return rows.jacobian.trace_gram(columns.jacobian)


@pytest.mark.parametrize("whitening", ["unit", "half", "none"])
def test_kernel_sums_are_those_of_all_pairs(source, whitening):
    """One sum of gradients gives the sums of values times the kernel."""
    engine, X = source
    values = np.random.default_rng(0).normal(size=(20, 3))
    total = sum_jacobians(engine, Samples(X), values, whitening)
    sums, own = kernel_sums(engine, Samples(X[:7]), total, whitening)
    pairs = compute_pair_matrix(
        engine, Samples(X[:7]), Samples(X), (whitening, whitening), compute_traces
    )
    np.testing.assert_allclose(sums, pairs @ values, rtol=1e-10)
    np.testing.assert_allclose(own, pairs[:, :7].diagonal(), rtol=1e-10)


def test_sums_of_jacobians_are_those_of_whitened_jacobians_written_out(mlp):
    network, X, engine = mlp
    total = sum_jacobians(engine, Samples(X))
    jacobians = [chunk.whitened().jacobian for chunk in iterate_chunks(engine, Samples(X))]
    expected = sum(jacobian.materialize().sum(dim=0) for jacobian in jacobians)
    actual = torch.cat([total[name] for name, _ in network.named_parameters()], dim=1)
    torch.testing.assert_close(actual, expected)


def test_linear_sums_with_matrices_are_those_of_all_kernels(mlp):
    network, X, engine = mlp
    J = naive.jacobians(network, X)
    kernels = naive.kernel(J[:7], J)
    values = np.random.default_rng(0).normal(size=(20, J.shape[1], 3))
    total = sum_jacobians(engine, Samples(X), values, "none")
    sums, own = linear_sums(engine, Samples(X[:7]), total, "none", True)
    expected = [sum(kernels[n, j] @ values[j] for j in range(20)) for n in range(7)]
    np.testing.assert_allclose(sums, expected, rtol=1e-8)
    np.testing.assert_allclose(own, [kernels[n, n] for n in range(7)], rtol=1e-8)


@pytest.mark.parametrize("matrices", [True, False])
@pytest.mark.parametrize("left_out", [True, False])
@pytest.mark.parametrize("queries", [slice(0, 7), None], ids=["others", "fitted"])
def test_pair_sums_are_those_of_a_double_loop(mlp, matrices, left_out, queries):
    network, X, engine = mlp
    J = naive.jacobians(network, X)
    fitted = Samples(X)
    rows = fitted if queries is None else Samples(X[queries])
    weights = naive.kernel(J if queries is None else J[queries], J)
    if not matrices:
        weights = np.einsum("nmoo->nm", weights)[:, :, None, None]
    values = np.random.default_rng(0).normal(size=(20, weights.shape[2], 2))
    own = np.arange(len(weights))[::-1] - 1 if left_out else None
    weigh = compute_grams if matrices else compute_traces
    sums = pair_sums(engine, rows, fitted, "none", weigh, torch.as_tensor(values), own, True)
    for n, weights_of_n in enumerate(weights):
        kept = [j for j in range(20) if own is None or j != own[n]]
        total = sum(weights_of_n[j] for j in kept)
        weighted = sum(weights_of_n[j] @ values[j] for j in kept)
        squares = sum(weights_of_n[j] @ weights_of_n[j].T for j in kept)
        np.testing.assert_allclose(sums.total[n], total, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(sums.weighted[n], weighted, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(sums.squares[n], squares, rtol=1e-8, atol=1e-8)


def test_pair_sums_of_parts_are_merged():
    generator = np.random.default_rng(0)
    weights, values = (
        torch.as_tensor(generator.normal(size=shape)) for shape in [(4, 6), (6, 1, 2)]
    )
    whole = PairSums(values, None, True, slice(0, 4), slice(0, 6))
    whole.add(slice(0, 4), slice(0, 6), weights)
    merged = PairSums(values, None, True, slice(0, 4), slice(0, 6))
    for rows in (slice(0, 1), slice(1, 4)):
        for columns in (slice(0, 2), slice(2, 6)):
            part = PairSums(values, None, True, rows, columns)
            part.add(rows, columns, weights[rows, columns])
            merged.merge(pickle.loads(pickle.dumps(part)))
    for name in ("total", "weighted", "squares"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name))


def test_a_left_out_sample_does_not_change_the_given_weights():
    sums = PairSums(torch.ones(2, 1, 1).double(), np.array([1]), False, slice(0, 1), slice(0, 2))
    weights = torch.tensor([[2.0, 3.0]]).double()
    sums.add(slice(0, 1), slice(0, 2), weights)
    assert sums.total.item() == 2 and weights.tolist() == [[2, 3]]


def test_measures_are_taken_of_each_chunk_in_order(source):
    engine, X = source
    values = np.arange(20.0)[:, None]

    def measure(chunk, part):
        return chunk.rows.start, part.sum().item()

    _, measures = sum_and_measure(engine, Samples(X), values, "unit", measure)
    assert measures == [(start, values[start : start + 4].sum()) for start in range(0, 20, 4)]


def test_progress_counts_samples_if_verbose(source, capsys):
    engine, X = source
    sum_jacobians(engine, Samples(X))
    assert capsys.readouterr().err == ""
    sum_jacobians(engine, Samples(X), verbose=1)
    assert "20/20" in capsys.readouterr().err
