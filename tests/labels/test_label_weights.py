"""Weights of the fitted samples, and the means of labels and predictions that they give."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim._gradients.engine import GradientEngine
from sknetsim._kernels.similarities import PowerCount
from sknetsim._networks.fingerprint import digest_samples
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim.labels._label_weights import LabelWeights, compute_values
from sknetsim.labels._problems import infer_target

COUNT = 6
LABELS = np.random.default_rng(0).normal(size=(COUNT, 3))


@pytest.fixture
def source():
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return GradientEngine(resolve_network(network), "all")


@pytest.fixture
def weights(source):
    """Return the weights of samples with labels of three columns; samples 0 and 1 are equal."""
    X = Samples(torch.randn(COUNT, 2, dtype=torch.float64)[[0, 0, 2, 3, 4, 5]])
    target = infer_target(source, X, LABELS)
    digests = digest_samples(X, source.dtype)
    values = compute_values(target, source, X, LABELS)
    return LabelWeights(target, X, digests, target.label_keys(LABELS), values)


WAYS = {
    "count": lambda weights, source: weights.with_count(PowerCount(2.0)),
    "matrices": lambda weights, source: weights.with_linear(source, "none", True, 0),
    "traces": lambda weights, source: weights.with_linear(source, "none", False, 0),
}
ways = pytest.mark.parametrize("way", WAYS)


def test_values_are_the_coordinates_of_labels_and_residuals(weights, source):
    outputs = source.network.module(weights.samples.data).detach().numpy()
    np.testing.assert_allclose(weights.predictions, outputs)
    labels, residuals = weights.values.numpy().transpose(2, 0, 1)
    np.testing.assert_allclose(weights.target.from_coordinates(labels), LABELS)
    np.testing.assert_allclose(residuals, outputs - LABELS)


@ways
def test_a_singular_query_gets_the_means_of_all_labels_and_predictions(weights, source, way):
    weights = WAYS[way](weights, source)
    sums = weights.sums(source, weights.samples)
    labels, predictions = weights.means(sums, torch.ones(COUNT, dtype=torch.bool))
    np.testing.assert_allclose(labels, np.tile(LABELS.mean(axis=0), (COUNT, 1)))
    np.testing.assert_allclose(
        predictions, np.tile(weights.predictions.mean(axis=0), (COUNT, 1)), atol=1e-12
    )


@ways
def test_a_singular_query_gets_the_mean_of_all_other_labels(weights, source, way):
    weights = WAYS[way](weights, source)
    own = np.array([0, 1, -1, 3, 4, 5])
    sums = weights.sums(source, weights.samples, own)
    means = weights.means_of_others(sums, torch.ones(COUNT, dtype=torch.bool), own)
    expected = [LABELS.mean(axis=0) if i < 0 else np.delete(LABELS, i, 0).mean(0) for i in own]
    np.testing.assert_allclose(means, expected, atol=1e-12)


@ways
def test_a_single_fitted_sample_keeps_its_own_label_if_it_is_left_out(source, way):
    X, y = Samples(torch.ones(1, 2, dtype=torch.float64)), np.array([[1.0, 2.0, 3.0]])
    target = infer_target(source, X, y)
    values = compute_values(target, source, X, y)
    weights = WAYS[way](LabelWeights(target, X, [b"digest"], [0], values), source)
    own = np.array([0])
    sums = weights.sums(source, X, own)
    means = weights.means_of_others(sums, torch.ones(1, dtype=torch.bool), own)
    np.testing.assert_allclose(means, y)


def test_a_sample_is_matched_by_its_digest_and_then_by_its_label(weights):
    assert weights.match(weights.digests, None).tolist() == list(range(COUNT))
    assert weights.match([b"unknown", weights.digests[4]], None).tolist() == [-1, 4]
    # Samples 0 and 1 are equal; a label that neither has matches the first of them.
    pair = [weights.digests[0]] * 2
    assert weights.match(pair[:1], LABELS[1:2]).tolist() == [1]
    assert weights.match(pair, LABELS[[1, 0]]).tolist() == [1, 0]
    assert weights.match(pair[:1], LABELS[1:2] + 1).tolist() == [0]


def test_other_weights_leave_the_fitted_ones_unchanged(weights, source):
    fitted = weights.with_linear(source, "none", True, 0)
    before = replace(fitted)
    counted = fitted.with_count(PowerCount(2.0))
    assert fitted == before
    assert counted.count == PowerCount(2.0)
    assert counted.linear is fitted.linear
