"""Losses compared at given labels, of the fitted samples and of the queries."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim import (
    ActiveLearningSampler,
    ChangedNetworkError,
    FeatureStoreError,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    TrainingInfluence,
    featurize,
)
from sknetsim.displays import (
    ContributionsDisplay,
    DensityDisplay,
    NeighborsDisplay,
    SimilarityMatrixDisplay,
)
from sknetsim.displays.explorer._measures import compute_measures

from .. import naive

EPS = float(torch.finfo(torch.float64).eps)
GENERATOR = torch.Generator().manual_seed(0)
X, Q = (torch.randn(n, 3, generator=GENERATOR, dtype=torch.float64) for n in (9, 5))
Y = np.array([0, 1, 2, 0, 1, 2, 2, 1, 0])
Y_Q = np.array([1, 1, 0, 2, 2])
LANDMARKS = {"n_components": len(X), "random_state": 0}


def make_module(outputs=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)).double()


def freeze(kind, module, criterion):
    return FrozenEstimator(kind(module, criterion=criterion, verbose=0).initialize())


@pytest.fixture(scope="module")
def net():
    return freeze(NeuralNetClassifier, make_module(), nn.CrossEntropyLoss)


def compute_gradients(samples, labels, module=None, loss=nn.functional.cross_entropy):
    """Return the gradient of the loss of each sample at its label, from a loop over samples."""
    remaining = iter(torch.as_tensor(labels))
    module = make_module() if module is None else module
    return naive.jacobians(module, samples, lambda raw: loss(raw, next(remaining)[None]))


J, J_Q = compute_gradients(X, Y), compute_gradients(Q, Y_Q)
GRAM = naive.correlation(J_Q, J, EPS)
KERNEL = naive.kernel(J_Q, J)[:, :, 0, 0]
LENGTHS = (J_Q**2).sum(axis=(1, 2))
DISTANCES = np.sqrt(2 - 2 * GRAM)


def fit_density(net, output, **params):
    return NetworkDensity(net, output, **params).fit(X, Y)


def compute_density_from_decisions(net, output):
    """Return the log density: an outlier is |decision| below the offset, others are above it."""
    density = fit_density(net, output)
    distances = np.abs(density.decision_function(Q, Y_Q))
    return density.offset_ + density.predict(Q, Y_Q) * distances


def fit_neighbors(net, output, **params):
    return NetworkNeighbors(net, output, n_neighbors=3, **params).fit(X, Y)


def multiply_features(net, output, **params):
    featurizer = GradientFeaturizer(net, output, **params).fit(X, Y)
    return featurizer.transform(Q, Y_Q) @ featurizer.transform(X, Y).T


def multiply_stored_features(net, output, folder):
    featurizer = GradientFeaturizer(net, output, **LANDMARKS).fit(X, Y)
    store = featurize(featurizer, Q, folder / "store", y=Y_Q)
    return np.asarray(store) @ featurizer.transform(X, Y).T


# Queries of (net, output, folder), and what the loss gives.
QUERIES = {
    "gram": (lambda net, o, _: NetworkKernel(net, o)(Q, X, y_X=Y_Q, y_Y=Y), GRAM),
    "gram of one set": (
        lambda net, o, _: NetworkKernel(net, o)(Q, y_X=Y_Q),
        naive.correlation(J_Q, J_Q, EPS),
    ),
    "gram of one set at other labels": (
        lambda net, o, _: NetworkKernel(net, o)(X, X, y_X=Y, y_Y=Y[::-1].copy()),
        naive.correlation(J, compute_gradients(X, Y[::-1].copy()), EPS),
    ),
    "two samples": (
        lambda net, o, _: NetworkKernel(net, o)(Q[0].numpy(), X[0].numpy(), y_X=[1], y_Y=[0]),
        GRAM[0, 0],
    ),
    "fitted gram": (lambda net, o, _: NetworkKernel(net, o).fit(X, Y).transform(Q, Y_Q), GRAM),
    "diagonal": (lambda net, o, _: NetworkKernel(net, o, normalize=False).diag(Q, Y_Q), LENGTHS),
    "matrices": (
        lambda net, o, _: NetworkKernel(net, o).matrix(Q, X, y_X=Y_Q, y_Y=Y)[:, :, 0, 0],
        GRAM,
    ),
    "influence": (
        lambda net, o, _: NetworkKernel(net, o).influence(X, Q, y_X=Y, y_Y=Y_Q),
        naive.influence(J, J_Q)[:, :, 0, 0],
    ),
    "contributions": (
        lambda net, o, _: (
            NetworkKernel(net, o).contributions(Q, X[:5], y_X=Y_Q, y_Y=Y[:5]).similarity
        ),
        GRAM.diagonal(),
    ),
    "soft count": (lambda net, o, _: fit_density(net, o).neighbor_count(Q, Y_Q), GRAM.sum(axis=1)),
    "power count": (
        lambda net, o, _: fit_density(net, o, method="power").neighbor_count(Q, Y_Q),
        (GRAM.clip(0) ** 2).sum(axis=1),
    ),
    "count of features": (
        lambda net, o, _: fit_density(net, o, **LANDMARKS).neighbor_count(Q, Y_Q),
        GRAM.sum(axis=1),
    ),
    "log density": (
        lambda net, o, _: fit_density(net, o).score_samples(Q, Y_Q),
        np.log((1 + (1 + GRAM).sum(axis=1)) / (1 + len(X))),
    ),
    "outliers": (
        lambda net, o, _: compute_density_from_decisions(net, o),
        np.log((1 + (1 + GRAM).sum(axis=1)) / (1 + len(X))),
    ),
    "reliability": (
        lambda net, o, _: fit_density(net, o).reliability(Q, Y_Q),
        KERNEL.sum(axis=1) / LENGTHS,
    ),
    "absolute reliability": (
        lambda net, o, _: fit_density(net, o).reliability(Q, Y_Q, absolute=True),
        np.abs(KERNEL).sum(axis=1) / LENGTHS,
    ),
    "neighbors": (
        lambda net, o, _: fit_neighbors(net, o).kneighbors(Q, y=Y_Q)[0],
        np.sort(DISTANCES, axis=1)[:, :3],
    ),
    "re-ranked neighbors": (
        lambda net, o, _: fit_neighbors(net, o, n_candidates=9, **LANDMARKS).kneighbors(Q, y=Y_Q)[
            0
        ],
        np.sort(DISTANCES, axis=1)[:, :3],
    ),
    "neighbors within a radius": (
        lambda net, o, _: [
            len(near) for near in fit_neighbors(net, o).radius_neighbors(Q, 1.3, y=Y_Q)[1]
        ],
        (DISTANCES <= 1.3).sum(axis=1),
    ),
    "graph": (
        lambda net, o, _: fit_neighbors(net, o).kneighbors_graph(Q, 9, "distance", y=Y_Q).toarray(),
        DISTANCES,
    ),
    "connected graph": (
        lambda net, o, _: fit_neighbors(net, o, mode="connectivity").transform(Q, Y_Q).toarray(),
        np.sort(DISTANCES, axis=1)[:, 2:3] >= DISTANCES,
    ),
    "features": (lambda net, o, _: multiply_features(net, o), GRAM),
    "landmarks": (lambda net, o, _: multiply_features(net, o, **LANDMARKS), GRAM),
    "stored features": (lambda net, o, folder: multiply_stored_features(net, o, folder), GRAM),
}


@pytest.mark.parametrize(("query", "expected"), QUERIES.values(), ids=QUERIES)
def test_losses_are_compared_at_the_labels(net, tmp_path, query, expected):
    np.testing.assert_allclose(query(net, "loss", tmp_path), expected, atol=1e-6)


@pytest.mark.parametrize("query", [query for query, _ in QUERIES.values()], ids=QUERIES)
def test_labels_without_an_effect_raise_an_error(net, tmp_path, query):
    with pytest.raises(ValueError, match=r"must be None unless losses .* for output='all'"):
        query(net, "all", tmp_path)


KERNELS = {
    "PerceptualKernel": lambda net: PerceptualKernel(net),
    "estimator='features'": lambda net: NetworkKernel("features", "loss"),
}


@pytest.mark.parametrize(("given", "make"), KERNELS.items(), ids=KERNELS)
def test_labels_without_losses_raise_an_error(net, given, make):
    with pytest.raises(ValueError, match=f"`y` must be None .*; got labels for {given}"):
        make(net).diag(X / 10, Y)


WRONG = {
    "too few": (Y_Q[:4], r"`y` must have 5 labels, .*; got shape \(4,\)"),
    "one number": (1, r"`y` must have 5 labels, .*; got shape \(\)"),
    "unknown class": (Y_Q + 1, "`y` must contain class numbers from 0 to 2"),
    "no number of a class": (Y_Q + 0.5, r"`y` must contain class numbers, .*; got 1\.5"),
    "several numbers": (np.c_[Y_Q, Y_Q], r"`y` must have labels of shape \(\)"),
    "names": (list("babcc"), "`y` must contain numbers"),
    "missing": ([1, 1, np.nan, 2, 2], "`y` must be finite"),
}


@pytest.mark.parametrize(("labels", "message"), WRONG.values(), ids=WRONG)
def test_labels_that_do_not_fit_raise_an_error(net, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_density(net, "loss").score_samples(Q, labels)


FORMS = {
    "list": Y_Q.tolist(),
    "Series": pd.Series(Y_Q, index=list("abcde")),
    "column": Y_Q[:, None],
    "floats": Y_Q.astype(float),
    "Tensor": torch.as_tensor(Y_Q, dtype=torch.int32),
    "probabilities": np.eye(3)[Y_Q],
}


@pytest.mark.parametrize("labels", FORMS.values(), ids=FORMS)
def test_labels_have_any_form_in_which_they_train_a_network(net, labels):
    np.testing.assert_allclose(NetworkKernel(net, "loss")(Q, X, y_X=labels, y_Y=Y), GRAM, atol=1e-6)


binary = nn.functional.binary_cross_entropy_with_logits
CRITERIA = {
    "regression": (NeuralNetRegressor, nn.MSELoss, 1, nn.functional.mse_loss, [[0.3], [-1.0]]),
    "classes of a plain net": (
        NeuralNet,
        nn.CrossEntropyLoss,
        3,
        nn.functional.cross_entropy,
        [2, 0],
    ),
    "two classes": (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, 1, binary, [[1.0], [0.0]]),
    "several labels": (NeuralNet, nn.BCEWithLogitsLoss, 2, binary, [[1.0, 0.0], [1.0, 1.0]]),
}


@pytest.mark.parametrize(("kind", "criterion", "outputs", "loss", "labels"), CRITERIA.values())
def test_the_losses_of_each_criterion_are_compared_at_the_labels(
    kind, criterion, outputs, loss, labels
):
    module = make_module(outputs)
    gradients = compute_gradients(X[:2], labels, module, loss)
    kernel = NetworkKernel(freeze(kind, module, criterion), "loss", normalize=False)
    expected = naive.kernel(gradients, gradients)[:, :, 0, 0]
    np.testing.assert_allclose(kernel.fit(X[:2], labels).transform(X[:2], labels), expected)


def test_queries_without_labels_are_at_the_predicted_ones(net):
    predicted = make_module()(Q).argmax(dim=1)
    density = fit_density(net, "loss")
    np.testing.assert_array_equal(density.score_samples(Q), density.score_samples(Q, predicted))
    piped = make_pipeline(GradientFeaturizer(net, "loss", **LANDMARKS)).fit(X, Y)
    np.testing.assert_allclose(piped.transform(Q), piped[0].transform(Q, predicted))


TRANSFORMERS = {
    "kernel": lambda net: NetworkKernel(net, "loss"),
    "neighbors": lambda net: NetworkNeighbors(net, "loss", n_neighbors=2),
    "features": lambda net: GradientFeaturizer(net, "loss"),
}


@pytest.mark.parametrize("make", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_samples_that_are_fitted_and_transformed_have_their_labels(net, make):
    actual, expected = make(net).fit_transform(X, Y), make(net).fit(X, Y).transform(X, Y)
    assert abs(actual - expected).max() == 0
    assert abs(actual - make(net).fit_transform(X)).max() > 0.1


def test_features_at_labels_have_the_container_that_is_set(net):
    featurizer = GradientFeaturizer(net, "loss").set_output(transform="pandas")
    assert isinstance(featurizer.fit_transform(X, Y), pd.DataFrame)


def test_neighbors_of_the_fitted_samples_are_at_the_labels_of_fit(net):
    distances = np.sqrt((2 - 2 * naive.correlation(J, J, EPS)).clip(0))
    np.fill_diagonal(distances, np.inf)
    neighbors = fit_neighbors(net, "loss")
    expected = np.sort(distances, axis=1)[:, :3]
    np.testing.assert_allclose(neighbors.kneighbors()[0], expected, atol=1e-6)
    for method in (neighbors.kneighbors, neighbors.radius_neighbors, neighbors.kneighbors_graph):
        with pytest.raises(ValueError, match="`y` must be None if `X` is None"):
            method(y=Y)


def test_the_labels_of_a_second_set_need_a_second_set(net):
    with pytest.raises(ValueError, match="`y_Y` must be None if `Y` is None"):
        NetworkKernel(net, "loss")(X, y_Y=Y)


def test_equal_samples_with_different_labels_are_different_samples(net):
    twins, labels = X[[0, 0]], [0, 1]
    density = NetworkDensity(net, "loss").fit(twins, labels)
    k = naive.correlation(*(compute_gradients(twins[:1], [label]) for label in labels), EPS)[0, 0]
    k_2 = [
        naive.correlation(compute_gradients(twins[:1], [2]), compute_gradients(twins[:1], [i]), EPS)
        for i in labels
    ]
    # The twin with label 0 leaves itself out, and counts the twin with label 1.
    expected = [np.log((2 + k) / 2), np.log((3 + np.sum(k_2)) / 3)]
    actual = density.score_samples(twins, [0, 2])
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    np.testing.assert_array_equal(density.score_samples(twins, [0.0, 2.0]), actual)


def test_weights_of_equal_samples_are_added_if_their_labels_are_equal(net):
    rows, labels = [0, 0, 0, 1], [0, 0, 1, 2]
    once = NetworkDensity(net, "loss").fit(X[[0, 0, 1]], [0, 1, 2], [2, 1, 1])
    twice = NetworkDensity(net, "loss").fit(X[rows], labels, [1, 1, 1, 1])
    expected = once.score_samples(X[:2], [0, 1])
    np.testing.assert_allclose(twice.score_samples(X[:2], [0, 1]), expected, atol=1e-9)


def test_samples_of_weight_zero_are_left_out_with_their_labels(net):
    weights = (Y > 0).astype(float)
    density = NetworkDensity(net, "loss").fit(X, Y, weights)
    expected = GRAM[:, Y > 0].sum(axis=1)
    np.testing.assert_allclose(density.neighbor_count(Q, Y_Q), expected, atol=1e-6)


def test_a_search_scores_at_the_labels_of_the_held_out_samples(net):
    folds = [(np.arange(6), np.arange(6, 9))]
    search = GridSearchCV(NetworkDensity(net, "loss"), {"alpha": [1.0]}, cv=folds, refit=False)
    scores = search.fit(X.numpy(), Y).cv_results_["mean_test_score"]
    gram = naive.correlation(J[6:], J[:6], EPS)
    np.testing.assert_allclose(scores, np.log((7 + gram.sum(axis=1)) / 7).sum(), atol=1e-6)


def test_labels_of_other_outputs_are_ignored_where_scikit_learn_passes_them(net):
    density = NetworkDensity(net)
    assert density.fit(X, Y).score(Q, Y_Q) == density.fit(X).score(Q)
    np.testing.assert_array_equal(density.fit_predict(X, Y), density.fit_predict(X))


def test_outliers_among_the_fitted_samples_are_found_at_their_labels(net):
    density = NetworkDensity(net, "loss", contamination=0.3)
    expected = density.fit(X, Y).predict(X, Y)
    np.testing.assert_array_equal(density.fit_predict(X, Y), expected)
    assert (expected < 0).sum() == 3


def test_fitted_labels_do_not_change_with_the_tensor_that_was_passed(net):
    labels = torch.tensor(Y)
    density = NetworkDensity(net, "loss", method="power").fit(X, labels)
    before = density.neighbor_count(Q, Y_Q)
    labels[:] = 0
    np.testing.assert_array_equal(density.neighbor_count(Q, Y_Q), before)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_have_the_fitted_labels(net, copier):
    kernel = copier(NetworkKernel(net, "loss").fit(X, Y))
    np.testing.assert_allclose(kernel.transform(Q, Y_Q), GRAM, atol=1e-6)


def test_the_kept_gram_matrix_is_that_of_the_labels(net):
    kernel = NetworkKernel(net, "loss")
    first, _ = kernel(Q, eval_gradient=True, y_X=Y_Q)
    assert not np.allclose(kernel(Q, eval_gradient=True, y_X=[0] * 5)[0], first)
    np.testing.assert_array_equal(kernel(Q, eval_gradient=True, y_X=Y_Q)[0], first)


def test_cached_features_are_those_of_the_labels(net, tmp_path):
    featurizer = GradientFeaturizer(net, "loss", memory=str(tmp_path), **LANDMARKS)
    features = [featurizer.fit(X, y).transform(Q, y_Q) for y in (Y, 0 * Y) for y_Q in (Y_Q, None)]
    plain = GradientFeaturizer(net, "loss", **LANDMARKS)
    expected = [plain.fit(X, y).transform(Q, y_Q) for y in (Y, 0 * Y) for y_Q in (Y_Q, None)]
    np.testing.assert_array_equal(features, expected)


def test_a_store_at_other_labels_is_another_store(net, tmp_path):
    featurizer = GradientFeaturizer(net, "loss", **LANDMARKS).fit(X, Y)
    featurize(featurizer, Q, tmp_path, y=Y_Q)
    for labels in (None, [0, 1, 0, 2, 2]):
        with pytest.raises(FeatureStoreError, match="data"):
            featurize(featurizer, Q, tmp_path, y=labels)
    with pytest.raises(FeatureStoreError, match="featurizer"):
        featurize(featurizer.fit(X, Y[::-1].copy()), Q, tmp_path, y=Y_Q)


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 99

    def __getitem__(self, index):
        return Q[index % len(Q)]


def test_all_labels_of_a_dataset_belong_to_its_store(net, tmp_path):
    """Of the items themselves, only some are compared."""
    featurizer = GradientFeaturizer(net, "loss", **LANDMARKS).fit(X, Y)
    labels = np.zeros(99, dtype=int)
    featurize(featurizer, Items(), tmp_path, y=labels)
    labels[2] = 1
    with pytest.raises(FeatureStoreError, match="data"):
        featurize(featurizer, Items(), tmp_path, y=labels)


def test_densities_at_labels_are_not_those_of_another_output(net):
    density = fit_density(net, "loss", method="power", dimension=2.0)
    density.set_params(output="all")
    with pytest.raises(ChangedNetworkError, match="`output` must be 'loss', as in fit"):
        density.score_samples(Q)


def test_labels_follow_their_samples_through_the_steps_of_a_pipeline(net):
    table = pd.DataFrame(X.numpy(), columns=["a", "b", "c"])
    scaler = StandardScaler().fit(table)
    piped = NetworkDensity(FrozenEstimator(make_pipeline(scaler, net)), "loss").fit(table, Y)
    plain = NetworkDensity(net, "loss").fit(scaler.transform(table), Y)
    expected = plain.score_samples(scaler.transform(table), Y[::-1].copy())
    np.testing.assert_allclose(piped.score_samples(table, Y[::-1].copy()), expected, atol=1e-9)


def test_denoised_labels_do_not_depend_on_themselves(net):
    """The weights are similarities at the predicted labels, whatever the labels in `fit`."""
    weights = NetworkKernel(net, "loss")(X).clip(0)
    denoiser = LabelDenoiser(net, "loss", alpha=1.0).fit(X, Y)
    expected = weights @ np.eye(3)[Y] / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(denoiser.transform(X), expected, atol=1e-6)


def test_a_sampler_compares_losses_at_the_predicted_labels(net):
    sampler = ActiveLearningSampler(net, "loss", strategy="kcenter")
    expected = sampler.fit(X).score_samples(Q)
    np.testing.assert_array_equal(sampler.fit(X, Y).score_samples(Q), expected)


def test_displays_compare_losses_at_the_labels(net):
    kernel = NetworkKernel(net, "loss")
    gram = SimilarityMatrixDisplay.from_estimator(kernel, Q, y=Y_Q).gram
    np.testing.assert_array_equal(gram, kernel(Q, y_X=Y_Q))
    pairs = ContributionsDisplay.from_estimator(kernel, Q, X[:5], y_X=Y_Q, y_Y=Y[:5])
    np.testing.assert_allclose(pairs.contributions.similarity, GRAM.diagonal(), atol=1e-6)
    near = NeighborsDisplay.from_estimator(fit_neighbors(net, "loss"), Q, y=Y_Q).similarities
    np.testing.assert_allclose(near, -np.sort(-GRAM, axis=1)[:, :3], atol=1e-6)
    density = fit_density(net, "loss")
    shown = DensityDisplay.from_estimator(density, Q, y=Y_Q, coordinates=Q[:, 0])
    np.testing.assert_array_equal(shown.log_density, density.score_samples(Q, Y_Q))


def test_the_explorer_compares_losses_at_the_labels(net):
    measures = compute_measures(
        net, X, Y, predictions=None, n_neighbors=3, alpha=2.0, output="loss"
    )
    gram = naive.correlation(J, J, EPS)
    expected = np.take_along_axis(gram, measures.neighbors, axis=1)
    np.testing.assert_allclose(measures.similarities, expected, atol=1e-6)
    reliability = naive.kernel(J, J)[:, :, 0, 0].sum(axis=1) / (J**2).sum(axis=(1, 2))
    np.testing.assert_allclose(measures.scores["reliability"], reliability, atol=1e-6)
    density = NetworkDensity(net, "loss", method="power").fit(X, Y)
    np.testing.assert_allclose(measures.scores["density"], density.score_samples(X, Y), atol=1e-9)


def test_features_of_influences_are_at_the_labels(net):
    influence = TrainingInfluence(net, measure="loss", curvature="none")
    fitted = influence.fit(X, Y).transform(X, Y)
    np.testing.assert_allclose(influence.transform(Q, Y_Q) @ fitted.T, GRAM, atol=1e-6)
