"""Influence of fitted samples, against a dense inverse and against retraining."""

import copy

import joblib
import numpy as np
import pytest
import skorch
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from torch import nn

from sknetsim import (
    ChangedNetworkError,
    NetworkKernel,
    NetworkNeighbors,
    TrainingInfluence,
    UnsupportedNetworkError,
)

from ..naive import correlation
from . import naive
from .cases import CASES, SAMPLES, make_module, wrap

MEASURES = [
    (name, measure)
    for name, case in CASES.items()
    for measure in (["margin", "loss"] if case.has_margin else ["loss"])
]
#: Numbers of landmarks: None for the exact curvature, and all fitted samples.
LANDMARKS = [None, SAMPLES]


def fit(name, **settings):
    module, estimator, X, y, queries, labels = CASES[name].build()
    influence = TrainingInfluence(estimator, random_state=0, **settings).fit(X, y)
    return influence, module, X, y, queries, labels


@pytest.mark.parametrize(("name", "measure"), MEASURES)
@pytest.mark.parametrize("landmarks", LANDMARKS)
def test_the_influence_is_that_of_a_dense_inverse(name, measure, landmarks):
    settings = {"measure": measure, "n_components": landmarks, "damping": 0.3}
    influence, module, X, y, queries, labels = fit(name, **settings)
    expected = naive.compute_influence(
        CASES[name], module, X, y, queries, labels, measure, damping=0.3
    )
    result = influence.influence(queries, labels)
    np.testing.assert_allclose(result, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("count", [3, 30], ids=["dual", "parameters"])
def test_both_forms_of_the_exact_curvature_agree_with_the_inverse(count):
    case = CASES["module of classes"]
    module = make_module(3)
    X = torch.randn(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.arange(count) % 3
    influence = TrainingInfluence(module, damping=0.1).fit(X, y)
    expected = naive.compute_influence(case, module, X, y, X, y, "margin", 0.1)
    # 38 parameters, and two combinations of outputs for each sample.
    assert type(influence._ridge).__name__ == ("DualRidge" if count == 3 else "ParameterRidge")
    np.testing.assert_allclose(influence.influence(X, y), expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("damping", [1.0, 1e-4])
def test_the_exact_curvature_of_many_parameters_keeps_its_digits_in_float32(damping):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 500), nn.ReLU(), nn.Linear(500, 3))
    X, y = torch.randn(15, 20) + 1, torch.arange(15) % 3
    X[1] = X[0]
    short = TrainingInfluence(network, damping=damping).fit(X, y)
    long = TrainingInfluence(copy.deepcopy(network).double(), damping=damping).fit(X.double(), y)
    for compute in (
        lambda influence, X: influence.influence(X, y),
        lambda influence, X: influence.self_influence_,
        lambda influence, X: influence.leverage_,
        lambda influence, X: influence.leave_one_out(),
    ):
        expected = compute(long, X.double())
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(compute(short, X), expected, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("landmarks", [None, 5])
def test_variances_at_fitted_samples_are_not_below_that_within_the_span(landmarks):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 500), nn.ReLU(), nn.Linear(500, 1))
    X, y = torch.randn(15, 20) + 1, torch.randn(15)
    influence = TrainingInfluence(network, damping=1e-6, n_components=landmarks).fit(X, y)
    # The Hessian of the squared error is 2, and the leverage the share of the variance.
    variance = influence.posterior_variance(X)[:, 0]
    assert (variance >= influence.leverage_ / 2 * (1 - 1e-5)).all()


def test_more_landmarks_are_closer_to_the_exact_influence():
    influence, *_, queries, labels = fit("cross-entropy")
    exact = influence.influence(queries, labels)
    errors = []
    for count in (2, 6, SAMPLES):
        influence, *_ = fit("cross-entropy", n_components=count)
        errors.append(np.abs(influence.influence(queries, labels) - exact).max())
    assert errors[0] > errors[1] > errors[2]


def test_without_curvature_the_influence_is_a_product_of_gradients():
    influence, module, X, y, queries, labels = fit("cross-entropy", curvature="none")
    case = CASES["cross-entropy"]
    losses = naive.compute_gradients(case, module, X, y, "loss")
    margins = naive.compute_gradients(case, module, queries, labels, "margin")
    expected = (-margins @ losses.mT / len(X)).numpy()
    np.testing.assert_allclose(influence.influence(queries, labels), expected, rtol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_other_quantities_follow_from_the_influence(name):
    influence, *_, queries, labels = fit(name)
    expected = influence.influence(queries, labels)
    groups = np.arange(SAMPLES) % 3
    sums = np.stack([expected[:, groups == group].sum(axis=1) for group in range(3)], axis=1)
    top = influence.top(queries, 2, labels)
    rows = np.arange(len(expected))[:, None]
    tolerance = {"rtol": 1e-7, "atol": 1e-10 * np.abs(expected).max()}
    np.testing.assert_allclose(
        influence.mean_influence(queries, labels), expected.mean(axis=0), **tolerance
    )
    result = influence.group_influence(queries, groups, labels)
    np.testing.assert_allclose(result, sums, **tolerance)
    np.testing.assert_allclose(top.helpful_influence, -np.sort(-expected)[:, :2], **tolerance)
    np.testing.assert_allclose(top.harmful_influence, np.sort(expected)[:, :2], **tolerance)
    np.testing.assert_allclose(expected[rows, top.helpful], top.helpful_influence, **tolerance)
    np.testing.assert_allclose(expected[rows, top.harmful], top.harmful_influence, **tolerance)


@pytest.mark.parametrize("name", CASES)
def test_self_influence_is_the_diagonal_of_the_influence_on_the_loss(name):
    influence, _, X, y, *_ = fit(name, measure="loss")
    expected = np.diagonal(influence.influence(X, y))
    np.testing.assert_allclose(influence.self_influence_, expected, rtol=1e-8)
    assert influence.self_influence_.min() >= 0


def test_leverages_sum_to_the_degrees_of_freedom():
    influence, module, X, y, *_ = fit("cross-entropy", damping=0.1)
    curvature = naive.compute_curvature(CASES["cross-entropy"], module, X, y)
    expected = torch.linalg.solve(naive.damp(curvature, 0.1), curvature).trace()
    np.testing.assert_allclose(influence.leverage_.sum(), float(expected))


@pytest.mark.parametrize("landmarks", [*LANDMARKS, 4], ids=["exact", "all", "some"])
def test_the_posterior_variance_is_that_of_the_tangent_kernel(landmarks):
    influence, module, X, y, queries, _ = fit("cross-entropy", n_components=landmarks, damping=0.3)
    case = CASES["cross-entropy"]
    curvature = naive.compute_curvature(case, module, X, y)
    if landmarks == 4:
        # The curvature counts in the span of the landmarks only.
        rows = [naive.compute_jacobian(case, module, x) for x in influence._ridge.landmarks.data]
        basis = torch.linalg.svd(centre(torch.stack(rows)).flatten(0, 1), full_matrices=False)[2]
        basis = basis[:8]
        scale = curvature.diagonal().mean()
        curvature = basis.mT @ basis @ curvature @ basis.mT @ basis
        matrix = curvature + 0.3 * scale * torch.eye(len(curvature))
    else:
        matrix = naive.damp(curvature, 0.3)
    J = torch.stack([naive.compute_jacobian(case, module, x) for x in queries])
    kernels = J @ torch.linalg.solve(matrix, J.mT) / len(X)
    expected = kernels.diagonal(dim1=1, dim2=2).numpy()
    np.testing.assert_allclose(influence.posterior_variance(queries), expected, rtol=1e-7)


def centre(J):
    """Return the gradients of the outputs without their mean over the outputs."""
    return J - J.mean(dim=1, keepdim=True)


class TestLinearModel:
    """Ridge regression, for which retraining has a closed form."""

    X = np.random.default_rng(0).normal(size=(15, 4))
    y = X @ np.array([1.0, -2.0, 0.5, 0.0]) + np.random.default_rng(1).normal(size=15)
    decay = 0.2

    def train(self, kept):
        """Return the minimiser of sum over kept (z - y)^2 / 15 + decay |w|^2."""
        X, y = self.X[kept], self.y[kept]
        return np.linalg.solve(X.T @ X / 15 + self.decay * np.eye(4), X.T @ y / 15)

    def make_influence(self):
        network = nn.Linear(4, 1, bias=False).double()
        with torch.no_grad():
            network.weight.copy_(torch.as_tensor(self.train(np.arange(15)))[None])
        # The Hessian of the squared error is 2, so that of the decay is 2 * decay.
        mean = np.trace(2 * self.X.T @ self.X / 15) / 4
        return TrainingInfluence(network, damping=2 * self.decay / mean).fit(self.X, self.y)

    def test_outputs_without_a_sample_are_those_of_retraining(self):
        expected = [self.X[i] @ self.train(np.arange(15) != i) for i in range(15)]
        result = self.make_influence().leave_one_out()[:, 0]
        np.testing.assert_allclose(result, expected, rtol=1e-10)

    def test_the_influence_is_the_first_order_change_of_the_loss(self):
        influence = self.make_influence()
        query = np.array([[0.3, 0.1, -1.0, 0.7]])
        leverage = influence.leverage_
        change = []
        for i in range(15):
            removed, all_of_them = self.train(np.arange(15) != i), self.train(np.arange(15))
            # The move of the parameters is larger by 1 / (1 - leverage) than to first order.
            move = (removed - all_of_them) * (1 - leverage[i])
            change.append(2 * (query[0] @ all_of_them - 1.0) * (query[0] @ move))
        result = influence.influence(query, np.array([1.0]))[0]
        np.testing.assert_allclose(result, change, rtol=1e-8)


def test_predicted_labels_are_taken_without_labels():
    influence, module, _, _, queries, _ = fit("cross-entropy")
    expected = influence.influence(queries, module(queries).argmax(dim=1))
    np.testing.assert_array_equal(influence.influence(queries), expected)


def test_workers_return_the_same():
    influence, *_, queries, labels = fit("cross-entropy")
    expected = influence.influence(queries, labels)
    influence.set_params(n_jobs=2)
    with joblib.parallel_config("threading"):
        np.testing.assert_allclose(influence.influence(queries, labels), expected, rtol=1e-10)


def test_features_are_cosines_of_preconditioned_gradients():
    influence, module, X, y, *_ = fit("cross-entropy")
    case, predicted = CASES["cross-entropy"], module(X).argmax(dim=1)
    matrix = naive.damp(naive.compute_curvature(case, module, X, y), 1.0)
    margins = naive.compute_gradients(case, module, X, predicted, "margin")
    gram = (margins @ torch.linalg.solve(matrix, margins.mT)).numpy()
    lengths = np.sqrt(gram.diagonal())
    expected = gram / lengths[:, None] / lengths
    features = influence.transform(X)
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-8)


@pytest.mark.parametrize("landmarks", LANDMARKS)
def test_features_of_numbers_compare_all_outputs(landmarks):
    influence, module, X, y, *_ = fit("columns", n_components=landmarks)
    case = CASES["columns"]
    matrix = naive.damp(naive.compute_curvature(case, module, X, y), 1.0)
    J = torch.stack([naive.compute_jacobian(case, module, x) for x in X])
    root = torch.linalg.cholesky(matrix.inverse())
    expected = correlation(*[(J @ root).numpy()] * 2, eps=1e-15)
    features = influence.transform(X)
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-8)
    assert features.shape[1] == len(influence.get_feature_names_out())


def test_neighbours_take_the_features():
    influence, _, X, y, *_ = fit("cross-entropy", n_components=5)
    pipeline = make_pipeline(influence, NetworkKernel("features"))
    gram = pipeline.fit_transform(X, y)
    neighbors = NetworkNeighbors("features", n_neighbors=2).fit(influence.transform(X))
    _, indices = neighbors.kneighbors(influence.transform(X[:3]))
    assert indices[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(gram.diagonal(), 1)


def test_the_clone_has_the_same_network():
    influence, *_ = fit("cross-entropy")
    copied = clone(influence)
    assert copied.estimator is influence.estimator


def test_a_network_that_was_trained_on_is_refused():
    influence, module, _, _, queries, labels = fit("module of classes")
    with torch.no_grad():
        module[0].weight += 0.1
    with pytest.raises(ChangedNetworkError, match="must be as it was in fit"):
        influence.influence(queries, labels)


def test_another_criterion_is_refused():
    influence, *_, queries, labels = fit("weighted and smoothed")
    influence.estimator_.criterion_.label_smoothing = 0.3
    with pytest.raises(ChangedNetworkError, match="another criterion"):
        influence.influence(queries, labels)


@pytest.mark.parametrize(
    ("kind", "criterion", "outputs", "dtype", "message"),
    [
        (skorch.NeuralNetRegressor, nn.L1Loss, 1, float, "Hessians are zero"),
        (skorch.NeuralNetClassifier, nn.MultiMarginLoss, 3, int, "is not implemented"),
    ],
    ids=["absolute", "margins"],
)
def test_a_criterion_without_curvature_is_refused(kind, criterion, outputs, dtype, message):
    net = wrap(kind, make_module(outputs), criterion)
    y = np.arange(SAMPLES, dtype=dtype) % 3
    with pytest.raises(UnsupportedNetworkError, match=message):
        TrainingInfluence(net).fit(np.zeros((SAMPLES, 3)), y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"damping": 0}, "'damping' parameter"),
        ({"curvature": "full"}, "'curvature' parameter"),
        ({"measure": "logit"}, "'measure' parameter"),
        ({"n_components": 0}, "'n_components' parameter"),
        ({"n_components": SAMPLES + 1}, "`n_components` must be an integer between 1 and 12"),
        ({"n_components": 2, "curvature": "none"}, "must be None unless `curvature` is 'ggn'"),
    ],
)
def test_unsuitable_parameters_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        fit("cross-entropy", **settings)


@pytest.mark.parametrize("landmarks", [None, 3])
def test_a_loss_without_gradients_is_refused(landmarks):
    network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3))
    with torch.no_grad():
        network[0].bias.fill_(-100)
    for samples in (3, 30):
        influence = TrainingInfluence(network, parameters=network[0], n_components=landmarks)
        with pytest.raises(UnsupportedNetworkError, match="whose curvature is not zero"):
            influence.fit(torch.zeros(samples, 3), np.arange(samples) % 3)


@pytest.mark.parametrize(("margin", "is_fitted"), [(20.0, True), (40.0, False), (1e4, False)])
def test_confident_predictions_do_not_make_a_loss_concave(margin, is_fitted):
    network = make_module(3)
    with torch.no_grad():
        network[-1].bias[0] = margin
    influence = TrainingInfluence(network)
    X, y = torch.zeros(SAMPLES, 3), np.arange(SAMPLES) % 3
    if is_fitted:
        assert np.isfinite(influence.fit(X, y).self_influence_).all()
    else:
        with pytest.raises(UnsupportedNetworkError, match="is certain of all its predictions"):
            influence.fit(X, y)


class PlainWeights(nn.Module):
    """Cross-entropy whose class weights are no buffer."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction, self.weights = reduction, torch.tensor([1.0, 2.0, 0.5])

    def forward(self, logits, y):
        settings = {"weight": self.weights, "reduction": self.reduction}
        return nn.functional.cross_entropy(logits, y, **settings)


def test_tensors_of_a_criterion_need_not_be_buffers():
    X, y = torch.randn(SAMPLES, 3), np.arange(SAMPLES) % 3
    buffer = {"criterion__weight": PlainWeights().weights}
    results = []
    for criterion, settings in ((PlainWeights, {}), (nn.CrossEntropyLoss, buffer)):
        module = make_module(3).float()
        net = wrap(skorch.NeuralNetClassifier, module, criterion, **settings)
        results.append(TrainingInfluence(net).fit(X, y).influence(X, y))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("curvature", ["kfac", "ekfac", "none"])
def test_leaving_out_needs_the_curvature_of_each_sample(curvature):
    influence, *_ = fit("cross-entropy", curvature=curvature)
    with pytest.raises(ValueError, match="`curvature` must be 'ggn' for leave_one_out; got"):
        influence.leave_one_out()


@pytest.mark.parametrize(
    "compute",
    [
        lambda influence: influence.posterior_variance(np.zeros((2, 3))),
        lambda influence: influence.leverage_,
    ],
    ids=["variance", "leverage"],
)
def test_variances_need_a_curvature(compute):
    influence, *_ = fit("cross-entropy", curvature="none")
    with pytest.raises(ValueError, match="`curvature` must be 'ggn', 'kfac' or 'ekfac' for"):
        compute(influence)


def test_numbers_have_no_margin():
    with pytest.raises(ValueError, match="must be 'loss' or 'auto'"):
        fit("columns", measure="margin")


def test_the_loss_of_numbers_needs_labels():
    influence, *_, queries, _ = fit("columns")
    with pytest.raises(ValueError, match="`y` must be the labels of the queries"):
        influence.influence(queries)


def test_features_of_numbers_take_no_labels():
    influence, _, X, y, *_ = fit("columns")
    with pytest.raises(ValueError, match="`y` must be None if the labels are numbers"):
        influence.transform(X, y)


def test_features_have_no_loss():
    with pytest.raises(ValueError, match="`estimator` must be a network"):
        TrainingInfluence("features").fit(np.eye(3), [0, 1, 1])


@pytest.mark.parametrize("count", [0, 1.5, True, SAMPLES + 1])
def test_top_needs_a_number_of_fitted_samples(count):
    influence, *_, queries, labels = fit("cross-entropy")
    with pytest.raises(ValueError, match="`n_samples` must be an integer between 1 and 12"):
        influence.top(queries, count, labels)


def test_groups_need_one_for_each_fitted_sample():
    influence, *_, queries, labels = fit("cross-entropy")
    with pytest.raises(ValueError, match=r"`groups` must have the shape \(12,\)"):
        influence.group_influence(queries, np.zeros(3), labels)


def test_groups_need_names_that_can_be_sorted():
    influence, *_, queries, labels = fit("cross-entropy")
    with pytest.raises(TypeError, match="`groups` must contain names that can be sorted"):
        influence.group_influence(queries, [None] * SAMPLES, labels)


def test_labels_and_queries_need_the_same_number():
    influence, *_, queries, labels = fit("cross-entropy")
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        influence.influence(queries, labels[:2])


def test_a_curvature_beyond_the_memory_budget_is_refused():
    _, _, X, y, *_ = CASES["cross-entropy"].build()
    X, y = X.repeat(100, 1), y.repeat(100)
    network = nn.Sequential(nn.Linear(3, 400), nn.Tanh(), nn.Linear(400, 3))
    with config_context(working_memory=16), pytest.raises(MemoryError, match="Set `n_components`"):
        TrainingInfluence(network).fit(X.float(), y)


def test_hessians_of_many_outputs_beyond_the_memory_budget_are_refused():
    X, y = torch.zeros(200, 3), np.arange(200)
    with (
        config_context(working_memory=16),
        pytest.raises(MemoryError, match="Hessians of the loss"),
    ):
        TrainingInfluence(nn.Linear(3, 200)).fit(X, y)


def test_the_network_is_left_as_it_was():
    module, estimator, X, y, queries, labels = CASES["cross-entropy"].build()
    before = copy.deepcopy(module.state_dict())
    module.train()
    TrainingInfluence(estimator).fit(X, y).influence(queries, labels)
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_the_metric_of_the_influence_separates_samples_of_real_data():
    X, y = load_digits(return_X_y=True)
    X, y = (X[:150] / 16).astype("float32"), y[:150]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    settings = {"optimizer": torch.optim.Adam, "lr": 0.01, "train_split": None, "verbose": 0}
    net = skorch.NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **settings)
    net.set_params(max_epochs=10).fit(X, y)
    similarities = []
    for curvature in ("none", "ggn"):
        influence = TrainingInfluence(net, curvature=curvature).fit(X, y)
        features = influence.transform(X)
        similarities.append((features @ features.T)[np.triu_indices(150, 1)])
    plain, preconditioned = (np.square(values).mean() for values in similarities)
    # The directions that many samples share have the largest curvature, and count least.
    assert preconditioned < plain / 2
