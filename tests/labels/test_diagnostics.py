"""FitDiagnostics, compared with explicit local moments and on networks with a known fit."""

import numpy as np
import pytest
import skorch
import torch
from torch import nn

from sknetsim import FitDiagnostics, GradientFeaturizer, NetworkNeighbors
from sknetsim.labels.diagnostics import Neighborhoods


def make_neighborhoods(samples=40, count=6, seed=0):
    rng = np.random.default_rng(seed)
    indices = np.array(
        [rng.choice(np.delete(np.arange(samples), i), count) for i in range(samples)]
    )
    return Neighborhoods(indices, rng.uniform(0.1, 1, (samples, count)))


def test_means_and_variances_include_the_sample_itself():
    around, values = make_neighborhoods(), np.random.default_rng(1).normal(size=(40, 2))
    for sample in (0, 17):
        members = values[[sample, *around.indices[sample]]]
        np.testing.assert_allclose(around.mean(values)[sample], members.mean(axis=0))
        expected = members.var(axis=0, ddof=1).sum()
        np.testing.assert_allclose(around.variance(values)[sample], expected)


def test_noise_is_the_value_of_a_fitted_line_at_distance_zero():
    around, values = make_neighborhoods(), np.random.default_rng(1).normal(size=(40, 2))
    noise = around.noise(values)
    for sample in range(40):
        pairs = [(j, place) for j in [sample, *around.indices[sample]] for place in range(6)]
        x = np.array([around.squares[j, place] for j, place in pairs])
        others = [around.indices[j, place] for j, place in pairs]
        y = np.square(values[others] - values[[j for j, _ in pairs]]).sum(axis=1) / 2
        slope, value = np.polyfit(x, y, 1)
        expected = y.mean() if slope < 0 else max(value, 0)
        assert noise[sample] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_noise_is_the_variance_if_all_distances_are_equal():
    around = make_neighborhoods()
    alike = Neighborhoods(around.indices, np.full_like(around.squares, 0.3))
    values = np.random.default_rng(1).normal(size=(40, 1))
    halves = np.square(values[around.indices] - values[:, None]).sum(axis=2).mean(axis=1) / 2
    np.testing.assert_allclose(alike.noise(values), around.mean(halves), rtol=1e-6)


def test_independent_residuals_have_nothing_in_common_on_average():
    rng = np.random.default_rng(0)
    indices = np.arange(7000).reshape(-1, 7)
    around = Neighborhoods(np.repeat(indices, 7, axis=0)[:, 1:], np.ones((7000, 6)))
    residuals = rng.normal(size=(7000, 1))
    common, total = (parts[::7] for parts in around.common_squares(residuals))
    standard_error = common.std() / np.sqrt(len(common))
    assert abs(common.mean()) < 4 * standard_error
    assert total.mean() == pytest.approx(1, abs=0.1)


def test_equal_residuals_have_everything_in_common():
    common, total = make_neighborhoods().common_squares(np.full((40, 2), 3.0))
    np.testing.assert_allclose(common, 18)
    np.testing.assert_allclose(total, 18)


def make_sine(samples, noise, seed=0):
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0, 2 * np.pi, samples)
    X = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return X, (np.sin(2 * angles) + noise * rng.normal(size=samples)).astype(np.float32)


def train(X, y, width=64, epochs=60):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
    )
    net = skorch.NeuralNetRegressor(
        network,
        max_epochs=epochs,
        lr=0.003,
        optimizer=torch.optim.Adam,
        batch_size=64,
        train_split=None,
        verbose=0,
    )
    return net.fit(X, y[:, None])


@pytest.fixture(scope="module")
def cases():
    """Return diagnostics of networks trained too briefly, well, and too long on few samples."""
    enough, few = make_sine(500, 0.3), make_sine(60, 0.3)
    nets = {
        "short": (train(*enough, epochs=1), *enough),
        "well": (train(*enough), *enough),
        "long": (train(*few, width=256, epochs=1000), *few),
    }
    return {name: FitDiagnostics(net).fit(X, y) for name, (net, X, y) in nets.items()}


@pytest.mark.slow
def test_underfitting_good_and_overfitting_networks_are_distinguished(cases):
    summaries = {name: diagnostics.summary() for name, diagnostics in cases.items()}
    assert summaries["short"]["underfit"] > 0.5 > 0.1 > summaries["well"]["underfit"]
    assert summaries["long"]["overfit"] > 0.3 > 0.1 > summaries["well"]["overfit"]
    assert summaries["short"]["overfit"] < 0.1 and summaries["long"]["underfit"] < 0.1


@pytest.mark.slow
def test_the_noise_with_a_well_trained_network_is_that_of_the_labels(cases):
    assert 0.6 * 0.09 < cases["well"].label_noise_.mean() < 1.4 * 0.09


@pytest.mark.slow
def test_regions_contain_the_samples_with_a_share_of_at_least_a_half(cases):
    for diagnostics in cases.values():
        larger = np.maximum(diagnostics.overfit_, diagnostics.underfit_)
        expected = np.where(diagnostics.overfit_ >= diagnostics.underfit_, "overfit", "underfit")
        assert (diagnostics.region_ == np.where(larger < 0.5, "fit", expected)).all()
        for region in ("overfit", "underfit"):
            share = diagnostics.summary()[f"{region} region"]
            assert share == pytest.approx((diagnostics.region_ == region).mean())


@pytest.mark.slow
def test_neighbours_equal_those_of_network_neighbors(cases):
    diagnostics = cases["well"]
    X, y = make_sine(500, 0.3)
    indices = (
        NetworkNeighbors(diagnostics.estimator_)
        .fit(X)
        .kneighbors(n_neighbors=10, return_distance=False)
    )
    expected = (y + y[indices].sum(axis=1)) / 11
    np.testing.assert_allclose(diagnostics.label_mean_[:, 0], expected, atol=1e-5)


def test_classes_have_shares_that_sum_to_one():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 2))
    y = np.where(X[:, 0] > 0, "right", "left")
    diagnostics = FitDiagnostics(n_neighbors=4, random_state=0).fit(X, y)
    np.testing.assert_allclose(diagnostics.label_mean_.sum(axis=1), 1)
    np.testing.assert_allclose(diagnostics.prediction_mean_.sum(axis=1), 1)
    assert diagnostics.summary()["noise"] < 0.2


@pytest.mark.slow
def test_features_from_landmarks_give_a_similar_diagnosis(cases):
    X, y = make_sine(500, 0.3)
    net = cases["well"].estimator_
    summary = FitDiagnostics(net, n_components=100, random_state=0).fit(X, y).summary()
    assert summary["underfit"] < 0.1 and summary["overfit"] < 0.1


@pytest.fixture(scope="module")
def labels_of_three():
    """Return a module with three logits, trained well on independent noisy labels."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 6)).astype(np.float32)
    Y = (X[:, :3] + 0.3 * rng.normal(size=(150, 3)) > 0).astype(np.float32)
    torch.manual_seed(0)
    core = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    net = skorch.NeuralNet(
        core,
        criterion=nn.BCEWithLogitsLoss,
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=60,
        train_split=None,
        verbose=0,
    )
    return net.fit(X, Y).module_, X, Y


@pytest.mark.parametrize("kind", [skorch.NeuralNet, skorch.NeuralNetClassifier])
def test_predictions_of_several_labels_are_probabilities(labels_of_three, kind):
    core, X, Y = labels_of_three
    net = kind(core, criterion=nn.BCEWithLogitsLoss).initialize()
    diagnostics = FitDiagnostics(net).fit(X, Y)
    probabilities = core(torch.as_tensor(X)).sigmoid().detach().numpy()
    neighbors = NetworkNeighbors(net).fit(X)
    indices = neighbors.kneighbors(n_neighbors=10, return_distance=False)
    for values, means in (
        (Y, diagnostics.label_mean_),
        (probabilities, diagnostics.prediction_mean_),
    ):
        expected = (values + values[indices].sum(axis=1)) / 11
        np.testing.assert_allclose(means, expected, atol=1e-5)
    assert diagnostics.summary()["overfit"] < 0.2


@pytest.mark.parametrize("kind", [skorch.NeuralNet, skorch.NeuralNetClassifier])
def test_a_sigmoid_inside_the_network_does_not_change_the_diagnosis(labels_of_three, kind):
    core, X, Y = labels_of_three
    logits = skorch.NeuralNet(core, criterion=nn.BCEWithLogitsLoss).initialize()
    inside = kind(nn.Sequential(core, nn.Sigmoid()), criterion=nn.BCELoss).initialize()
    expected = FitDiagnostics(logits).fit(X, Y).summary()
    summary = FitDiagnostics(inside).fit(X, Y).summary()
    assert summary == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("in_a_column", [False, True])
def test_a_plain_net_with_a_cross_entropy_is_diagnosed_as_a_classifier(in_a_column):
    X, y = make_sine(60, 0.3)
    classes = np.digitize(y, [-0.3, 0.3])
    classes = classes[:, None] if in_a_column else classes
    core = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    plain, classifier = (
        FitDiagnostics(kind(core, criterion=nn.CrossEntropyLoss).initialize()).fit(X, classes)
        for kind in (skorch.NeuralNet, skorch.NeuralNetClassifier)
    )
    np.testing.assert_array_equal(plain.prediction_mean_, classifier.prediction_mean_)
    assert plain.summary() == classifier.summary()


class OwnLoss(skorch.NeuralNetClassifier):
    """Classifier whose criterion NLLLoss takes the outputs themselves: log-probabilities."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return skorch.NeuralNet.get_loss(self, y_pred, y_true, *args, **kwargs)


@pytest.mark.parametrize("kind", [skorch.NeuralNet, OwnLoss])
def test_log_probabilities_and_probabilities_have_the_same_diagnosis(kind):
    X, y = make_sine(60, 0.3)
    classes = np.digitize(y, [-0.3, 0.3])
    core = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    nets = [
        skorch.NeuralNetClassifier(nn.Sequential(core, nn.Softmax(dim=1)), criterion=nn.NLLLoss),
        kind(nn.Sequential(core, nn.LogSoftmax(dim=1)), criterion=nn.NLLLoss),
    ]
    expected, diagnostics = (FitDiagnostics(net.initialize()).fit(X, classes) for net in nets)
    for name in ("prediction_mean_", "prediction_noise_", "overfit_", "underfit_"):
        results = (getattr(each, name) for each in (diagnostics, expected))
        np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


def test_names_for_a_module_raise_an_error():
    X, y = make_sine(20, 0.1)
    module = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="`y` must contain numbers, for classes the numbers"):
        FitDiagnostics(module).fit(X, np.where(y > 0, "up", "down"))


class Pair(nn.Linear):
    """Network that returns a tuple."""

    def __init__(self):
        super().__init__(2, 1)

    def forward(self, inputs):
        return super().forward(inputs), inputs


BAD = {
    "features": (
        lambda net, X, y: FitDiagnostics("features").fit(
            GradientFeaturizer(net).fit(X).transform(X), y
        ),
        r"`estimator` must be a network, .*; got 'features'",
    ),
    "no labels": (lambda net, X, y: FitDiagnostics(net).fit(X, None), "target y is None"),
    "two rows": (
        lambda net, X, y: FitDiagnostics(net).fit(X[:2], y[:2]),
        "`X` must have at least 3 samples, .*; got n_samples=2",
    ),
    "a tuple": (
        lambda net, X, y: FitDiagnostics(Pair(), output=lambda raw: raw[0]).fit(X, y),
        "`estimator` must return one tensor .* because predictions are needed; got a tuple. Wrap",
    ),
    "one neighbour": (
        lambda net, X, y: FitDiagnostics(net, n_neighbors=1).fit(X, y),
        "n_neighbors",
    ),
    "not fitted": (lambda net, X, y: FitDiagnostics(net).summary(), "not fitted yet"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_input_raises_an_error_that_names_it(name):
    call, message = BAD[name]
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match=message):
        call(net, *make_sine(20, 0.1))
