"""Nystroem features, against K(x, Z) K(Z, Z)^{-1/2} written out."""

import numpy as np
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sknetsim._features.nystroem import _draw_candidates, _inverse_root, fit_nystroem
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes.reductions import gram_matrix
from sknetsim.exceptions import FewerComponentsWarning, ZeroGradientWarning

from .. import naive
from ..cases import NETWORKS, build

BY_NAME = {case.name: case for case in NETWORKS}
NAMES = ["MLP", "CNN with BatchNorm", "LSTM classifier", "raw and unused parameters"]


def make_engine(network, **params):
    return GradientEngine(resolve_network(network), **params)


@pytest.fixture
def data():
    network, X = build(BY_NAME["MLP"], n_samples=20)
    return make_engine(network), X


def fit(source, X, n_components, kernel_error=0.1, seed=0):
    generator = np.random.RandomState(seed)
    return fit_nystroem(source, Samples(X), n_components, kernel_error, generator)


def select_held_out(X, n_components, seed=0):
    generator = np.random.RandomState(seed)
    return X[_draw_candidates(len(X), n_components, generator)[1]]


def naive_error(fitted, source, X):
    features = fitted.transform(source, Samples(X))
    difference = features @ features.T - gram_matrix(source, Samples(X))
    return np.sqrt(np.mean(difference[~np.eye(len(X), dtype=bool)] ** 2))


@pytest.mark.parametrize("name", NAMES)
def test_features_are_similarities_with_landmarks_times_their_inverse_root(name):
    network, X = build(BY_NAME[name], n_samples=12)
    fitted = fit(make_engine(network), X, 4)
    J, Z = (naive.jacobians(network, rows) for rows in (X, fitted.landmarks.data))
    values, vectors = np.linalg.eigh(naive.correlation(Z, Z, 1e-16))
    expected = naive.correlation(J, Z, 1e-16) @ vectors @ np.diag(values**-0.5) @ vectors.T
    np.testing.assert_allclose(
        fitted.transform(make_engine(network), Samples(X)), expected, atol=1e-7
    )


def test_inner_products_with_a_landmark_are_exact(data):
    source, X = data
    fitted = fit(source, X, 6)
    products = fitted.transform(source, Samples(X)) @ fitted.transform(source, fitted.landmarks).T
    np.testing.assert_allclose(
        products, gram_matrix(source, Samples(X), fitted.landmarks), atol=1e-9
    )


def test_the_residual_of_the_kernel_is_positive_semidefinite(data):
    source, X = data
    features = fit(source, X, 6).transform(source, Samples(X))
    residual = gram_matrix(source, Samples(X)) - features @ features.T
    assert np.linalg.eigvalsh(residual).min() > -1e-12


@pytest.mark.parametrize("name", NAMES)
def test_neither_batches_nor_a_small_budget_change_features(name):
    network, X = build(BY_NAME[name], n_samples=12)
    fitted = fit(make_engine(network), X, 4)
    expected = fitted.transform(make_engine(network), Samples(X))
    with sklearn.config_context(working_memory=0.1):
        actual = fitted.transform(make_engine(network, batch_size=5), Samples(X))
    np.testing.assert_allclose(actual, expected, atol=1e-10)


def test_the_kernel_error_is_that_of_held_out_samples(data):
    source, X = data
    fitted = fit(source, X, 3)
    assert fitted.kernel_error == pytest.approx(naive_error(fitted, source, select_held_out(X, 3)))


def test_the_kernel_error_of_few_samples_is_that_of_the_candidates(data):
    source, X = data
    fitted = fit(source, X[:4], 2)
    assert fitted.kernel_error == pytest.approx(naive_error(fitted, source, X[:4]))


@settings(deadline=None)
@given(count=st.integers(1, 3000), data=st.data())
def test_candidates_are_never_held_out(count, data):
    requested = data.draw(st.one_of(st.just("auto"), st.integers(1, count)))
    candidates, others = _draw_candidates(count, requested, np.random.RandomState(0))
    together = np.concatenate([candidates, others])
    assert len(np.unique(together)) == len(together)
    assert set(together) <= set(range(count))
    assert len(candidates) >= (1 if requested == "auto" else requested)
    assert len(others) <= count // 5


def test_auto_stops_at_the_first_landmark_that_reaches_the_error(data):
    source, X = data
    errors = [fit(source, X, count).kernel_error for count in range(1, 17)]
    wanted = errors[9]
    expected = next(count for count, error in enumerate(errors, start=1) if error <= wanted)
    assert fit(source, X, "auto", kernel_error=wanted).n_components == expected


def test_auto_warns_if_all_candidates_miss_the_error(data):
    source, X = data
    with pytest.warns(FewerComponentsWarning, match="of 16 features have .* fit more samples"):
        assert fit(source, X, "auto", kernel_error=1e-9).n_components == 16


def test_fewer_landmarks_than_requested_give_a_warning(data):
    source, X = data
    with pytest.warns(FewerComponentsWarning, match="`n_components` is 5, but .* rank 2,"):
        assert fit(source, torch.cat([X[:2]] * 10), 5).n_components == 2


def test_nearly_equal_landmarks_give_no_nan(data):
    source, X = data
    near = torch.cat([X[:5] + step * 1e-6 for step in range(4)])
    with pytest.warns(FewerComponentsWarning):
        features = fit(source, near, 16).transform(source, Samples(near))
    np.testing.assert_allclose(features @ features.T, gram_matrix(source, Samples(near)), atol=1e-6)


def test_the_root_of_a_singular_gram_matrix_is_that_of_its_pseudo_inverse():
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    gram = vectors @ vectors.T
    root = _inverse_root(gram, np.finfo(np.float64).eps)
    np.testing.assert_allclose(root @ root, np.linalg.pinv(gram, hermitian=True), atol=1e-10)


def make_half_zero_data():
    """Return a network with zero gradients at negative samples, and samples of both signs."""
    network = nn.Sequential(
        nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False)
    ).double()
    for layer in (network[0], network[2]):
        layer.weight.data.uniform_(0.5, 1.5)
    positive = torch.rand(9, 2, dtype=torch.float64) + 0.1
    return make_engine(network), torch.cat([positive, -positive])


def test_samples_with_zero_gradients_have_zero_features_and_are_no_landmarks():
    source, X = make_half_zero_data()
    with pytest.warns(ZeroGradientWarning, match="9 of 18 samples"):
        fitted = fit(source, X, 1)
        features = fitted.transform(source, Samples(X))
    assert (fitted.landmarks.data > 0).all()
    assert (features[:9] != 0).all()
    assert (features[9:] == 0).all()


def test_only_zero_gradients_raise_an_error():
    source, X = make_half_zero_data()
    with (
        pytest.warns(ZeroGradientWarning),
        pytest.raises(ValueError, match="got zero gradients at all 8 samples"),
    ):
        fit(source, X[9:], 1)


def test_more_landmarks_than_samples_raise_an_error(data):
    source, X = data
    with pytest.raises(
        ValueError, match=r"`n_components` must be an integer between 1 and 20 .*; got 21"
    ):
        fit(source, X, 21)


def test_more_landmarks_than_a_single_sample_raise_an_error(data):
    source, X = data
    with pytest.raises(ValueError, match=r"`n_components` must be 1 \(the number .*; got 2"):
        fit(source, X[:1], 2)


def test_samples_of_a_dict_or_a_dataset_can_be_landmarks(data):
    source, X = data
    expected = fit(source, X, 4).transform(source, Samples(X))
    dataset = torch.utils.data.TensorDataset(X, torch.zeros(len(X)))
    np.testing.assert_allclose(
        fit(source, dataset, 4).transform(source, Samples(dataset)), expected
    )
    named = {"input": X}
    np.testing.assert_allclose(fit(source, named, 4).transform(source, Samples(named)), expected)
