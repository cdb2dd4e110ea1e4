"""Features from landmarks against K(x, Z) K(Z, Z)^(-1/2) written out."""

import numpy as np
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sknetsim._features import nystroem as _nystroem
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes import reductions as _reductions
from sknetsim.exceptions import FewerComponentsWarning, ZeroGradientWarning

from .. import naive
from ..cases import NETWORKS, build

BY_NAME = {case.name: case for case in NETWORKS}
NAMES = ["MLP", "CNN with BatchNorm", "LSTM classifier", "raw and unused parameters"]


def engine_of(network, **params):
    return GradientEngine(resolve_network(network), **params)


@pytest.fixture
def data():
    network, X = build(BY_NAME["MLP"], n_samples=20)
    return engine_of(network), X


def fit(source, X, n_components, kernel_error=0.1, seed=0, y=None):
    generator = np.random.RandomState(seed)
    return _nystroem.fit_nystroem(source, Samples(X), y, n_components, kernel_error, generator)


def held_out(X, n_components, seed=0):
    generator = np.random.RandomState(seed)
    return X[_nystroem._draw_candidates(len(X), n_components, generator)[1]]


def naive_error(fitted, source, X):
    features = fitted.transform(source, Samples(X))
    difference = features @ features.T - _reductions.gram_matrix(source, Samples(X))
    return np.sqrt(np.mean(difference[~np.eye(len(X), dtype=bool)] ** 2))


@pytest.mark.parametrize("name", NAMES)
def test_features_are_similarities_with_landmarks_made_orthonormal(name):
    network, X = build(BY_NAME[name], n_samples=12)
    fitted = fit(engine_of(network), X, 4)
    J, Z = (naive.jacobians(network, rows) for rows in (X, fitted.landmarks.data))
    values, vectors = np.linalg.eigh(naive.correlation(Z, Z, 1e-16))
    expected = naive.correlation(J, Z, 1e-16) @ vectors @ np.diag(values**-0.5) @ vectors.T
    np.testing.assert_allclose(
        fitted.transform(engine_of(network), Samples(X)), expected, atol=1e-7
    )


def test_products_with_a_landmark_are_exact(data):
    source, X = data
    fitted = fit(source, X, 6)
    found = fitted.transform(source, Samples(X)) @ fitted.transform(source, fitted.landmarks).T
    np.testing.assert_allclose(
        found, _reductions.gram_matrix(source, Samples(X), fitted.landmarks), atol=1e-9
    )


def test_what_is_left_of_the_kernel_is_positive(data):
    source, X = data
    features = fit(source, X, 6).transform(source, Samples(X))
    left = _reductions.gram_matrix(source, Samples(X)) - features @ features.T
    assert np.linalg.eigvalsh(left).min() > -1e-12


@pytest.mark.parametrize("name", NAMES)
def test_neither_batches_nor_a_small_budget_change_features(name):
    network, X = build(BY_NAME[name], n_samples=12)
    fitted = fit(engine_of(network), X, 4)
    expected = fitted.transform(engine_of(network), Samples(X))
    with sklearn.config_context(working_memory=0.1):
        found = fitted.transform(engine_of(network, batch_size=5), Samples(X))
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_kernel_error_is_that_of_held_out_rows(data):
    source, X = data
    fitted = fit(source, X, 3)
    assert fitted.kernel_error == pytest.approx(naive_error(fitted, source, held_out(X, 3)))


def test_kernel_error_of_few_rows_is_that_of_the_candidates(data):
    source, X = data
    fitted = fit(source, X[:4], 2)
    assert fitted.kernel_error == pytest.approx(naive_error(fitted, source, X[:4]))


@settings(deadline=None)
@given(count=st.integers(1, 3000), data=st.data())
def test_candidates_are_many_and_never_held_out(count, data):
    asked = data.draw(st.one_of(st.just("auto"), st.integers(1, count)))
    candidates, others = _nystroem._draw_candidates(count, asked, np.random.RandomState(0))
    together = np.concatenate([candidates, others])
    assert len(np.unique(together)) == len(together)
    assert set(together) <= set(range(count))
    assert len(candidates) >= (1 if asked == "auto" else asked)
    assert len(others) <= count // 5


def test_auto_stops_at_the_first_landmark_that_reaches_the_error(data):
    source, X = data
    errors = [fit(source, X, count).kernel_error for count in range(1, 17)]
    wanted = errors[9]
    expected = next(count for count, error in enumerate(errors, start=1) if error <= wanted)
    assert fit(source, X, "auto", kernel_error=wanted).n_components == expected


def test_auto_says_so_where_all_candidates_miss_the_error(data):
    source, X = data
    with pytest.warns(FewerComponentsWarning, match="of 16 features have .* fit more samples"):
        assert fit(source, X, "auto", kernel_error=1e-9).n_components == 16


def test_fewer_landmarks_are_reported_where_fewer_span_all_rows(data):
    source, X = data
    with pytest.warns(FewerComponentsWarning, match="`n_components` is 5, but .* rank 2,"):
        assert fit(source, torch.cat([X[:2]] * 10), 5).n_components == 2


def test_landmarks_that_are_nearly_equal_give_no_nan(data):
    source, X = data
    near = torch.cat([X[:5] + step * 1e-6 for step in range(4)])
    with pytest.warns(FewerComponentsWarning):
        features = fit(source, near, 16).transform(source, Samples(near))
    np.testing.assert_allclose(
        features @ features.T, _reductions.gram_matrix(source, Samples(near)), atol=1e-6
    )


def test_the_root_of_a_singular_gram_is_that_of_its_pseudo_inverse():
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    gram = vectors @ vectors.T
    root = _nystroem._inverse_root(gram, np.finfo(np.float64).eps)
    np.testing.assert_allclose(root @ root, np.linalg.pinv(gram, hermitian=True), atol=1e-10)


def halves():
    """A network that is dead for negative rows, and rows of both signs."""
    network = nn.Sequential(
        nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False)
    ).double()
    for layer in (network[0], network[2]):
        layer.weight.data.uniform_(0.5, 1.5)
    alive = torch.rand(9, 2, dtype=torch.float64) + 0.1
    return engine_of(network), torch.cat([alive, -alive])


def test_zero_gradients_become_zero_features_and_no_landmarks():
    source, X = halves()
    with pytest.warns(ZeroGradientWarning, match="9 of 18 samples"):
        fitted = fit(source, X, 1)
        features = fitted.transform(source, Samples(X))
    assert (fitted.landmarks.data > 0).all()
    assert (features[:9] != 0).all()
    assert (features[9:] == 0).all()


def test_zero_gradients_alone_are_refused():
    source, X = halves()
    with (
        pytest.warns(ZeroGradientWarning),
        pytest.raises(ValueError, match="got zero gradients at all 8 samples"),
    ):
        fit(source, X[9:], 1)


def test_more_landmarks_than_rows_are_refused(data):
    source, X = data
    with pytest.raises(
        ValueError, match=r"`n_components` must be an integer between 1 and 20 .*; got 21"
    ):
        fit(source, X, 21)


def test_rows_of_a_dict_or_a_dataset_become_landmarks(data):
    source, X = data
    expected = fit(source, X, 4).transform(source, Samples(X))
    dataset = torch.utils.data.TensorDataset(X, torch.zeros(len(X)))
    np.testing.assert_allclose(
        fit(source, dataset, 4).transform(source, Samples(dataset)), expected
    )
    named = {"input": X}
    np.testing.assert_allclose(fit(source, named, 4).transform(source, Samples(named)), expected)
