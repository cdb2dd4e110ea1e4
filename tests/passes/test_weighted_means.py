"""Weighted means over fitted samples, against loops over all pairs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sknetsim._kernels.similarities import PowerCount, ThresholdCount
from sknetsim._networks.samples import Samples
from sknetsim._passes.weighted_means import (
    CountWeights,
    LinearWeights,
    WeightedSums,
    make_empty_values,
    match_digests,
    merge_equal_samples,
    total_influence,
)

from .. import naive

EPS = np.finfo(np.float64).eps


def draw_values(axis):
    return torch.as_tensor(np.random.default_rng(0).normal(size=(20, axis, 2)))


def make_linear(whitening, matrices):
    def make(mlp):
        network, X, engine = mlp
        J = naive.jacobians(network, X)
        weights = naive.kernel(J, J)
        if whitening == "unit":
            weights = naive.correlation(J, J, EPS)[:, :, None, None]
        elif not matrices:
            weights = np.einsum("nmoo->nm", weights)[:, :, None, None]
        values = draw_values(weights.shape[2])
        return LinearWeights.fit(engine, Samples(X), values, whitening), weights, values

    return make


def make_counts(count, slow):
    def make(mlp):
        network, X, _ = mlp
        J = naive.jacobians(network, X)
        weights = slow(naive.correlation(J, J, EPS))[:, :, None, None]
        values = draw_values(1)
        return CountWeights(count, Samples(X), values), weights, values

    return make


#: Weights of each kind, with all W(x_n, x_j) of shape (n, m, a, a) from a double loop.
WEIGHTS = {
    "kernels": make_linear("none", True),
    "traces": make_linear("none", False),
    "soft": make_linear("unit", False),
    "power": make_counts(PowerCount(2.0), lambda gram: np.maximum(gram, 0) ** 2),
    "threshold": make_counts(ThresholdCount(0.5), lambda gram: (gram >= 0.5).astype(float)),
}
kinds = pytest.mark.parametrize("kind", WEIGHTS)


@kinds
@pytest.mark.parametrize("left_out", [True, False])
def test_sums_are_those_of_a_double_loop(mlp, kind, left_out):
    _, X, engine = mlp
    weights, slow, values = WEIGHTS[kind](mlp)
    # Samples are left out of their own sums only, and the third not at all.
    own = np.where(np.arange(7) == 2, -1, np.arange(7)) if left_out else None
    sums = weights.sums(engine, Samples(X[:7]), own)
    for n in range(7):
        kept = [j for j in range(20) if own is None or j != own[n]]
        total = sum(slow[n, j] for j in kept)
        weighted = sum(slow[n, j] @ values[j].numpy() for j in kept)
        np.testing.assert_allclose(sums.total[n], total, atol=1e-8)
        np.testing.assert_allclose(sums.values[n], weighted, atol=1e-8)
        size = sum(np.linalg.norm(slow[n, j], 2) for j in kept)
        assert sums.size[n] >= size - 1e-8


@kinds
def test_means_and_remaining_noise_are_those_of_normalised_weights(mlp, kind):
    _, X, engine = mlp
    weights, slow, values = WEIGHTS[kind](mlp)
    sums = weights.sums(engine, Samples(X[:7]), squared=True)
    singular = sums.is_singular(EPS)
    assert not singular.any()
    means, noise = sums.means(singular, torch.zeros(())), sums.noise_kept(singular, 0.0)
    for n in range(7):
        normalised = np.linalg.inv(slow[n].sum(axis=0)) @ slow[n]
        expected = sum(normalised[j] @ values[j].numpy() for j in range(20))
        np.testing.assert_allclose(means[n], expected, rtol=1e-5, atol=1e-8)
        kept = sum(np.trace(A @ A.T) for A in normalised) / slow.shape[2]
        np.testing.assert_allclose(noise[n], kept, rtol=1e-5)


def test_singular_samples_get_the_given_values():
    total = torch.tensor([0.0, 2.0, 1e-17, 0.5]).double()[:, None, None]
    sums = WeightedSums(total, 3 * total, torch.tensor([0.0, 2, 1, 1]).double(), total**2)
    singular = sums.is_singular(EPS)
    assert singular.tolist() == [True, False, True, False]
    assert sums.means(singular, torch.tensor(7.0).double()).flatten().tolist() == [7, 3, 7, 3]
    assert sums.noise_kept(singular, 0.25).tolist() == [0.25, 1, 0.25, 1]


@pytest.mark.parametrize("kind", ["kernels", "traces"])
def test_the_alignment_compares_a_sum_of_vectors_with_independent_ones(mlp, kind):
    network, X, _ = mlp
    weights, _, values = WEIGHTS[kind](mlp)
    J, v = naive.jacobians(network, X), values[:, :, -1].numpy()
    if kind == "kernels":
        vectors = np.einsum("nop,no->np", J, v)
    else:
        vectors = (J * v[:, :, None]).reshape(len(J), -1)
    expected = np.linalg.norm(vectors.sum(axis=0)) / np.sqrt(np.square(vectors).sum())
    assert weights.alignment(-1) == pytest.approx(expected)


@pytest.mark.parametrize("absolute", [True, False])
def test_the_total_influence_is_that_of_a_double_loop(mlp, absolute):
    network, X, engine = mlp
    J = naive.jacobians(network, X)
    traces = np.einsum("nmoo->nm", naive.kernel(J[:7], J))
    expected = (np.abs(traces) if absolute else traces).sum(axis=1) / traces[:, :7].diagonal()
    influence = total_influence(engine, Samples(X[:7]), Samples(X), absolute)
    np.testing.assert_allclose(influence, expected, rtol=1e-8)


def test_sums_without_values_are_sums_of_weights(mlp):
    _, X, engine = mlp
    weights, slow, _ = WEIGHTS["power"](mlp)
    sums = CountWeights(weights.count, Samples(X), make_empty_values(20)).sums(engine, Samples(X))
    np.testing.assert_allclose(sums.total, slow.sum(axis=1), atol=1e-8)
    assert sums.values.shape == (20, 1, 0)


def test_equal_digests_are_matched_in_turn():
    assert match_digests("abca", "aaxab").tolist() == [0, 3, -1, 0, 1]


@kinds
@pytest.mark.parametrize("left_out", [True, False])
def test_weights_of_the_fitted_samples_multiply_their_terms(mlp, kind, left_out):
    _, X, engine = mlp
    weights, slow, values = WEIGHTS[kind](mlp)
    masses = torch.linspace(0.2, 3, 20, dtype=torch.float64)
    if isinstance(weights, CountWeights):
        weights = replace(weights, sample_weight=masses)
    else:
        weights = LinearWeights.fit(
            engine, Samples(X), values, weights.whitening, sample_weight=masses
        )
    own = np.arange(20) if left_out else None
    sums = weights.sums(engine, Samples(X), own, squared=not left_out)
    for n in range(20):
        kept = masses.numpy().copy()
        kept[n] -= min(kept[n], 1) if left_out else 0
        terms = kept[:, None, None] * slow[n]
        np.testing.assert_allclose(sums.total[n], terms.sum(axis=0), atol=1e-8)
        weighted = sum(term @ value.numpy() for term, value in zip(terms, values, strict=True))
        np.testing.assert_allclose(sums.values[n], weighted, atol=1e-8)
        size = sum(np.linalg.norm(term, 2) for term in terms)
        assert sums.size[n] >= size - 1e-8
        if not left_out:
            squares = sum(term @ term.T for term in terms)
            np.testing.assert_allclose(sums.squares[n], squares, rtol=1e-6, atol=1e-8)


def test_the_first_of_equal_samples_gets_the_weight_of_them_all():
    digests, weights = merge_equal_samples("abcab", np.array([1, 2, 3, 4, 5.5]))
    assert digests == ["a", "b", "c", None, None]
    assert weights.tolist() == [5, 7.5, 3, 0, 0]
