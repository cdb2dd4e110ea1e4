"""Checks of scikit-learn, and properties of all networks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import sknetsim
from sknetsim import (
    ActiveLearningSampler,
    FitDiagnostics,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    TrainingInfluence,
)
from sknetsim._networks import default_network

ESTIMATORS = [
    ActiveLearningSampler(),
    ActiveLearningSampler(strategy="maxdet", random_state=0),
    ActiveLearningSampler(strategy="kcenter", random_state=0),
    ActiveLearningSampler(strategy="density", method="power", random_state=0),
    ActiveLearningSampler(strategy="typicality"),
    FitDiagnostics(),
    GradientFeaturizer(),
    GradientFeaturizer(n_components=2),
    GradientFeaturizer(n_components=2, method="sketch", random_state=0),
    LabelDenoiser(),
    LabelDenoiser(method="threshold"),
    LabelDenoiser(method="soft"),
    LabelDenoiser(method="unnormalized"),
    LabelDenoiser(n_components=2),
    NetworkDensity(),
    NetworkDensity(method="threshold"),
    NetworkDensity(method="power"),
    NetworkDensity(method="power", n_components=2),
    NetworkKernel(),
    NetworkNeighbors(),
    NetworkNeighbors(n_components=2, n_candidates=3),
    PerceptualKernel(),
    PerceptualKernel(normalize=False),
    TrainingInfluence(),
    TrainingInfluence(n_components=3, random_state=0),
]


def list_failing_checks(estimator):
    """Return the checks that an estimator cannot pass, with the reasons."""
    if not isinstance(estimator, NetworkDensity) or estimator.n_components is None:
        return {}
    reason = "Landmarks are drawn at random from all samples, so repeated samples change the draw."
    kinds = ("dense", "sparse")
    return {f"check_sample_weight_equivalence_on_{kind}_data": reason for kind in kinds}


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=list_failing_checks)
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check, monkeypatch):
    # The checks fit thousands of times, and no check depends on how well the network is trained.
    monkeypatch.setattr(default_network, "_STEPS", 5)
    check(estimator)


def test_public_names_are_sorted_and_exist():
    assert sorted(sknetsim.__all__) == sknetsim.__all__
    assert all(hasattr(sknetsim, name) for name in sknetsim.__all__)


@st.composite
def networks_with_inputs(draw):
    """Draw a perceptron of any widths, dtype and activation, and samples, two of them equal."""
    seed, width, outputs = (
        draw(st.integers(0, 2**31)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 4)),
    )
    activation = draw(st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, width), activation(), nn.Linear(width, outputs)).to(dtype)
    for parameter in network.parameters():
        parameter.data.normal_(generator=generator)
    X = torch.randn(draw(st.integers(1, 8)), 3, generator=generator, dtype=dtype)
    return network, torch.cat([X, X[:1]])


@settings(max_examples=60, deadline=None)
@given(networks_with_inputs())
def test_the_kernel_is_symmetric_bounded_and_positive_with_unit_diagonal(drawn):
    network, X = drawn
    gram = NetworkKernel(network)(X)
    tolerance = 1e-9 if X.dtype == torch.float64 else 1e-4
    np.testing.assert_allclose(gram, gram.T, atol=tolerance)
    np.testing.assert_allclose(np.diag(gram), 1, atol=tolerance)
    assert np.abs(gram).max() <= 1
    assert np.linalg.eigvalsh(gram).min() >= -tolerance * len(gram)
    np.testing.assert_allclose(gram[0], gram[-1], atol=tolerance)


@settings(max_examples=30, deadline=None)
@given(networks_with_inputs())
def test_soft_counts_are_row_sums_of_the_gram_matrix(drawn):
    network, X = drawn
    counts = NetworkDensity(network).fit(X).neighbor_count(X)
    np.testing.assert_allclose(counts, NetworkKernel(network)(X).sum(axis=1), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(networks_with_inputs())
def test_other_metrics_are_bounded_and_at_least_the_trace(drawn):
    network, X = drawn
    trace, rotation, orthogonal = (
        NetworkKernel(network, metric=metric)(X) for metric in ("trace", "rotation", "orthogonal")
    )
    assert (trace <= rotation + 1e-5).all()
    assert (rotation <= orthogonal + 1e-5).all()
    assert (orthogonal <= 1).all()
