"""LabelDenoiser, compared with sums over explicit Jacobians and with theory."""

import pickle
import warnings

import numpy as np
import pytest
import skorch
import torch
from scipy.linalg import helmert
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from torch import nn

from sknetsim import (
    FitDiagnostics,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkKernel,
    NoNeighborsWarning,
)
from sknetsim.exceptions import UnsupportedNetworkError, ZeroGradientWarning

from ..naive import jacobians

METHODS = ["power", "threshold", "soft", "unnormalized"]
methods = pytest.mark.parametrize("method", METHODS)
N_SAMPLES = 30


def make_samples(count=N_SAMPLES, features=3):
    return torch.randn(count, features, dtype=torch.float64)


def regressor(outputs=1):
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs)).double()
    return skorch.NeuralNetRegressor(network, device="cpu").initialize()


def classifier(outputs=3, last=None, criterion=nn.CrossEntropyLoss):
    layers = [nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs), *([last] * (last is not None))]
    network = nn.Sequential(*layers).double()
    return skorch.NeuralNetClassifier(network, criterion=criterion, device="cpu").initialize()


def compute_probabilities(outputs):
    """Return the probabilities of the classes, from logits (n, c) or from one logit (n, 1)."""
    logits = torch.cat([0 * outputs, outputs], 1) if outputs.shape[1] == 1 else outputs
    return logits.softmax(dim=1).detach().numpy()


def to_array(outputs):
    return outputs.detach().numpy()


def one_logit_classifier():
    return classifier(1, criterion=nn.BCEWithLogitsLoss)


def softmax_classifier():
    return classifier(last=nn.Softmax(dim=1), criterion=nn.NLLLoss)


def multilabel():
    """Return a plain net with three logits of independent labels."""
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return skorch.NeuralNet(module, criterion=nn.BCEWithLogitsLoss, device="cpu").initialize()


def make_several_labels():
    return np.random.randint(0, 2, (N_SAMPLES, 3))


def compute_sigmoids(outputs):
    return outputs.sigmoid().detach().numpy()


#: Makers of network and labels, the predictions from the outputs, and the number of classes.
TASKS = {
    "regression": (regressor, lambda: np.random.randn(N_SAMPLES), to_array, None),
    "two outputs": (lambda: regressor(2), lambda: np.random.randn(N_SAMPLES, 2), to_array, None),
    "three classes": (classifier, lambda: np.arange(N_SAMPLES) % 3, compute_probabilities, 3),
    "two classes, one logit": (
        one_logit_classifier,
        lambda: np.arange(N_SAMPLES) % 2,
        compute_probabilities,
        2,
    ),
    "softmax inside": (softmax_classifier, lambda: np.arange(N_SAMPLES) % 3, to_array, 3),
    "several labels": (multilabel, make_several_labels, compute_sigmoids, None),
}
tasks = pytest.mark.parametrize("task", TASKS)


@pytest.fixture
def setting(task):
    """Return network, samples, labels, their values, a predictor and the number of classes."""
    np.random.seed(0)
    make, labels, predict, classes = TASKS[task]
    net, X, y = make(), make_samples(), labels()
    values = np.eye(classes)[y] if classes else y.reshape(N_SAMPLES, -1)
    return net, X, y, values, lambda X: predict(net.module_(X)), classes


def compute_jacobians(net, X, classes):
    """Return the Jacobians whose weighted sum is the gradient of the loss, of shape (n, a, P)."""

    def select(raw):
        logits = raw.log() if isinstance(net.module_[-1], nn.Softmax) else raw
        if logits.shape[1] == 1 and classes:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits @ torch.as_tensor(helmert(classes)).T if classes else logits

    return jacobians(net.module_, X, select)


COUNTS = {
    "power": lambda k: k.clip(0) ** 2,
    "threshold": lambda k: 1.0 * (k >= 0.1),
    "soft": lambda k: k,
}


def compute_weights(method, net, X, Y, classes):
    """Return the weights of m fitted samples around n queries, of shape (n, m, a, a)."""
    if method == "unnormalized":
        first, second = (compute_jacobians(net, part, classes) for part in (X, Y))
        return np.einsum("nap,mbp->nmab", first, second)
    return COUNTS[method](NetworkKernel(net)(X, Y))[:, :, None, None]


def compute_means(weights, values, classes):
    """Return (sum_j W_j)^{-1} sum_j W_j v_j, of shape (n, q), for values of shape (m, q)."""
    if weights.shape[2] == 1:
        return weights[:, :, 0, 0] @ values / weights.sum(axis=(1, 2, 3))[:, None]
    basis, centre = (helmert(classes), 1 / classes) if classes else (np.eye(values.shape[1]), 0)
    sums = np.einsum("nmab,mb->na", weights, (values - centre) @ basis.T)
    return centre + np.linalg.solve(weights.sum(axis=1), sums[:, :, None])[:, :, 0] @ basis


def fit_denoiser(net, X, y, method="power", **params):
    settings = {"alpha": 2.0, "threshold": 0.1, **params}
    return LabelDenoiser(net, method=method, **settings).fit(X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@tasks
@methods
def test_means_and_factors_equal_their_definition(setting, method):
    net, X, y, labels, predict, classes = setting
    queries = torch.cat([make_samples(4), X[:3]])
    denoising = fit_denoiser(net, X, y, method).denoising(queries)
    weights = compute_weights(method, net, queries, X, classes)
    np.testing.assert_allclose(denoising.labels, compute_means(weights, labels, classes), atol=1e-7)
    expected = compute_means(weights, predict(X), classes)
    np.testing.assert_allclose(denoising.predictions, expected, atol=1e-7)
    np.testing.assert_allclose(denoising.shift, predict(queries) - expected, atol=1e-7)
    shares = np.linalg.solve(weights.sum(axis=1)[:, None], weights)
    kept = np.einsum("nmab,nmab->n", shares, shares) / weights.shape[2]
    np.testing.assert_allclose(denoising.variance_factor, kept, rtol=1e-6)
    np.testing.assert_allclose(denoising.deviation_factor, np.sqrt(kept), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@tasks
@methods
def test_the_fitted_samples_can_be_passed_or_left_out(setting, method):
    net, X, y, *_ = setting
    denoiser = fit_denoiser(net, X, y, method)
    own, same = denoiser.denoising(), denoiser.denoising(X.clone())
    for name in ("labels", "predictions", "shift", "variance_factor"):
        np.testing.assert_allclose(getattr(own, name), getattr(same, name), atol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@tasks
@methods
def test_a_fitted_sample_is_left_out_of_its_own_mean(setting, method):
    net, X, y, *_ = setting
    means = fit_denoiser(net, X, y, method).leave_one_out(X[:1])
    others = fit_denoiser(net, X[1:], y[1:], method).transform(X[:1])
    np.testing.assert_allclose(means, others, atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@tasks
@methods
def test_label_quality_is_the_agreement_with_the_other_labels(setting, method):
    net, X, y, labels, _, classes = setting
    denoiser = fit_denoiser(net, X, y, method)
    others = denoiser.leave_one_out(X)
    if isinstance(net.criterion_, nn.BCEWithLogitsLoss) and not classes:
        expected = np.where(labels == 1, others, 1 - others).min(axis=1)
    elif classes:
        expected = others[np.arange(N_SAMPLES), y]
    else:
        residuals = (labels - others) / labels.std(axis=0)
        expected = 1 / (1 + (residuals**2).mean(axis=1))
    np.testing.assert_allclose(denoiser.label_quality(X, y), np.clip(expected, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(denoiser.label_issues(X, y), np.argsort(expected, kind="stable"))


def test_at_the_optimum_means_of_labels_equal_means_of_predictions():
    X, net = make_samples(), regressor(2)
    y = np.random.default_rng(0).normal(size=(N_SAMPLES, 2))
    hidden = net.module_[:2](X).detach().numpy()
    solution = np.linalg.lstsq(np.hstack([hidden, np.ones((N_SAMPLES, 1))]), y, rcond=None)[0]
    net.module_[2].weight.data = torch.as_tensor(solution[:-1].T.copy())
    net.module_[2].bias.data = torch.as_tensor(solution[-1])
    denoiser = LabelDenoiser(net, method="unnormalized", parameters="last_layer").fit(X, y)
    denoising = denoiser.denoising()
    np.testing.assert_allclose(denoising.labels, denoising.predictions, atol=1e-9)
    assert denoiser.stationarity_ < 1e-9


@pytest.mark.parametrize("make", [classifier, softmax_classifier, one_logit_classifier, multilabel])
def test_at_the_optimum_of_cross_entropy_means_of_labels_equal_means_of_predictions(make):
    X, net = make_samples(60), make()
    y = {
        one_logit_classifier: torch.randint(0, 2, (60,)),
        multilabel: torch.randint(0, 2, (60, 3)),
    }.get(make, torch.randint(0, 3, (60,)))
    last, hidden = net.module_[2], net.module_[:2](X).detach()
    optimizer = torch.optim.LBFGS(
        last.parameters(),
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        logits = last(hidden)
        logits = torch.cat([0 * logits, logits], 1) if make is one_logit_classifier else logits
        if make is multilabel:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y.double())
        else:
            loss = nn.functional.cross_entropy(logits, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    denoiser = LabelDenoiser(net, method="unnormalized", parameters="last_layer").fit(X, y)
    denoising = denoiser.denoising()
    assert denoiser.stationarity_ < 1e-5
    np.testing.assert_allclose(denoising.labels, denoising.predictions, atol=1e-4)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@tasks
@methods
def test_equal_inputs_average_their_noise(setting, method):
    net, X, y, labels, *_ = setting
    denoising = fit_denoiser(net, X[:1].expand(N_SAMPLES, -1), y, method).denoising()
    np.testing.assert_allclose(denoising.variance_factor, 1 / N_SAMPLES, rtol=1e-9)
    np.testing.assert_allclose(denoising.deviation_factor, 1 / np.sqrt(N_SAMPLES), rtol=1e-9)
    np.testing.assert_allclose(
        denoising.labels, np.tile(labels.mean(axis=0), (N_SAMPLES, 1)), atol=1e-9
    )


def test_a_network_far_from_a_stationary_point_gives_a_warning_with_the_distance():
    net, X = regressor(), make_samples()
    y = net.module_(X).detach().numpy()[:, 0] + 1  # All residuals are equal.
    gradients = -jacobians(net.module_, X)[:, 0]
    expected = np.linalg.norm(gradients.sum(axis=0)) / np.linalg.norm(gradients)
    with pytest.warns(ConvergenceWarning, match=f"{expected:.3g} times"):
        denoiser = LabelDenoiser(net, method="unnormalized").fit(X, y)
    assert denoiser.stationarity_ == pytest.approx(expected)


def test_other_methods_measure_no_stationarity():
    net, X = regressor(), make_samples()
    assert LabelDenoiser(net).fit(X, np.arange(N_SAMPLES)).stationarity_ is None


@pytest.mark.parametrize("leave_out", [False, True])
def test_a_sample_without_neighbours_gets_the_mean_and_is_counted_in_a_warning(leave_out):
    net, y = regressor(), np.arange(4.0)
    X = torch.tensor([[0.0, 0, 0], [0, 0, 1e-9], [1, 2, 3], [-3, 1, 0]], dtype=torch.float64)
    denoiser = LabelDenoiser(net, method="threshold", threshold=0.9999).fit(X, y)
    if not leave_out:
        other = torch.tensor([[5.0, -5, 5]], dtype=torch.float64)
        with pytest.warns(NoNeighborsWarning, match="1 of 2 samples"):
            denoising = denoiser.denoising(torch.cat([X[:1], other]))
        np.testing.assert_allclose(denoising.labels[:, 0], [0.5, 1.5], rtol=1e-6)
        np.testing.assert_allclose(denoising.variance_factor, [1 / 2, 1 / 4])
    else:
        with pytest.warns(NoNeighborsWarning, match="2 of 4 samples"):
            quality = denoiser.label_quality(X, y)
        others = y[[0, 1, 3]].mean()
        assert quality[2] == pytest.approx(1 / (1 + ((y[2] - others) / y.std()) ** 2))


@pytest.mark.parametrize("method", ["soft", "unnormalized"])
def test_samples_whose_weights_cancel_are_counted_in_a_warning(method):
    network = nn.Linear(2, 1, bias=False).double()
    X = torch.tensor([[1.0, 0], [-1, 0], [0, 1]], dtype=torch.float64)
    denoiser = LabelDenoiser(network, method=method).fit(X, np.array([100.0, 7, 300]))
    with pytest.warns(NoNeighborsWarning, match="1 of 2 samples"):
        means = denoiser.transform(X[1:])
    np.testing.assert_allclose(means[:, 0], [407 / 3, 300])


def test_a_sample_with_a_zero_gradient_has_no_neighbours():
    network = nn.Sequential(nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    X = torch.tensor([[1.0, 0], [1, 1]], dtype=torch.float64)
    denoiser = LabelDenoiser(network, parameters="1.weight").fit(X, np.array([1.0, 3.0]))
    with pytest.warns(ZeroGradientWarning), pytest.warns(NoNeighborsWarning):
        assert denoiser.predict(-X[:1]) == pytest.approx([2.0])


def test_equal_samples_are_left_out_one_by_one():
    X, y = make_samples(2)[[0, 0, 0, 1]], np.array([0.0, 1.0, 5.0, 9.0])
    denoiser = LabelDenoiser(regressor(), method="threshold", threshold=0.999).fit(X, y)
    means = denoiser.leave_one_out(X[:3])
    np.testing.assert_allclose(means[:, 0], [3.0, 2.5, 0.5])


@methods
def test_results_do_not_depend_on_the_batch_size(method):
    net, X, y = classifier(), make_samples(), np.arange(N_SAMPLES) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole, pieces = (
            LabelDenoiser(net, method=method, batch_size=size).fit(X, y).denoising(X[:7])
            for size in (None, 4)
        )
    np.testing.assert_allclose(whole.labels, pieces.labels, atol=1e-9)
    np.testing.assert_allclose(whole.variance_factor, pieces.variance_factor, rtol=1e-8)


@pytest.fixture(scope="module")
def noisy_classes():
    """Return a network trained on two clouds, of whose labels a tenth is flipped."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = (rng.normal(size=(200, 3)) + 2 * y[:, None]).astype(np.float32)
    flipped = rng.choice(200, 20, replace=False)
    y[flipped] = 1 - y[flipped]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    net = skorch.NeuralNetClassifier(
        network, criterion=nn.CrossEntropyLoss, train_split=None, max_epochs=30, lr=0.1, verbose=0
    )
    return net.fit(X, y), X, y, flipped


def test_flipped_labels_have_a_low_quality(noisy_classes):
    net, X, y, flipped = noisy_classes
    denoiser = LabelDenoiser(net).fit(X, y)
    quality = denoiser.label_quality(X, y)
    assert ((quality >= 0) & (quality <= 1)).all()
    suspicious = np.isin(np.arange(200), flipped)
    assert roc_auc_score(suspicious, -quality) > 0.9
    means = denoiser.label_issues(X, y)
    assert (np.diff(quality[means]) >= 0).all()
    assert denoiser.score(X, y) == (denoiser.leave_one_out(X).argmax(axis=1) == y).mean()


def test_features_from_landmarks_approximate_the_exact_means(noisy_classes):
    net, X, y, _ = noisy_classes
    exact, features = (LabelDenoiser(net, n_components=n).fit(X, y) for n in (None, 60))
    assert features.kernel_error_ > 0
    np.testing.assert_allclose(exact.transform(X), features.transform(X), atol=0.1)
    np.testing.assert_allclose(features.denoising().labels, features.denoising(X).labels, atol=1e-6)


def test_the_unnormalized_method_ignores_the_number_of_features(noisy_classes):
    net, X, y, _ = noisy_classes
    exact, features = (
        LabelDenoiser(net, method="unnormalized", n_components=n).fit(X, y) for n in (None, 9)
    )
    np.testing.assert_array_equal(exact.transform(X), features.transform(X))


def test_features_have_label_means_but_no_predictions(noisy_classes):
    net, X, y, _ = noisy_classes
    features = GradientFeaturizer(net).fit_transform(X)
    words = np.array(["no", "yes"])[y]
    denoiser = LabelDenoiser("features").fit(features, words)
    expected = LabelDenoiser(net).fit(X, y)
    np.testing.assert_allclose(denoiser.transform(features), expected.transform(X), atol=1e-4)
    assert (denoiser.predict(features) == np.array(["no", "yes"])[expected.predict(X)]).all()
    with pytest.raises(ValueError, match=r"`estimator` must be a network, .*; got 'features'"):
        denoiser.denoising()


def test_the_default_network_accepts_labels_of_any_name_and_scale():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 2))
    words = np.where(X[:, 0] > 0, "right", "left")
    assert LabelDenoiser(random_state=0).fit(X, words).score(X, words) > 0.9
    y = 1000 + 50 * X[:, 0]
    denoising = LabelDenoiser(random_state=0).fit(X, y).denoising()
    assert np.abs(denoising.shift).mean() < 50


def test_powers_can_be_compared_in_a_grid_search(noisy_classes):
    net, X, y, _ = noisy_classes
    search = GridSearchCV(LabelDenoiser(net), {"alpha": [0.1, 16.0]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.7


def test_after_fit_the_power_can_change_but_not_the_method_to_a_linear_one(noisy_classes):
    net, X, y, _ = noisy_classes
    denoiser = LabelDenoiser(net).fit(X, y)
    expected = LabelDenoiser(net, alpha=3.0).fit(X, y).transform(X)
    np.testing.assert_array_equal(denoiser.set_params(alpha=3.0).transform(X), expected)
    with pytest.raises(
        NotFittedError,
        match="`method` and `output` must be 'power' and 'all', as in fit; got 'soft'",
    ):
        denoiser.set_params(method="soft").transform(X)


def test_after_fit_the_method_can_change_to_a_count_and_back(noisy_classes):
    net, X, y, _ = noisy_classes
    denoiser = LabelDenoiser(net, method="unnormalized").fit(X, y)
    expected = denoiser.transform(X)
    counted = LabelDenoiser(net).fit(X, y).transform(X)
    np.testing.assert_allclose(denoiser.set_params(method="power").transform(X), counted)
    denoiser.set_params(method="unnormalized")
    np.testing.assert_array_equal(denoiser.transform(X), expected)


@pytest.mark.parametrize("call", ["transform", "denoising", "leave_one_out"])
def test_queries_are_validated_once(noisy_classes, monkeypatch, call):
    net, X, y, _ = noisy_classes
    denoiser, calls = LabelDenoiser(net).fit(X, y), []

    def check(X, *, reset):
        calls.append(X)
        return LabelDenoiser._check_X(denoiser, X, reset=reset)

    monkeypatch.setattr(denoiser, "_check_X", check)
    getattr(denoiser, call)(X[:3])
    assert len(calls) == 1


@methods
def test_pickles_and_clones_give_the_same_means(noisy_classes, method):
    net, X, y, _ = noisy_classes
    denoiser = LabelDenoiser(net, method=method).fit(X, y)
    expected = denoiser.transform(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(denoiser)).transform(X), expected)
    np.testing.assert_array_equal(clone(denoiser).fit(X, y).transform(X), expected)


class Pair(nn.Linear):
    """Network that returns a tuple."""

    def __init__(self):
        super().__init__(3, 1, dtype=torch.float64)

    def forward(self, inputs):
        return super().forward(inputs), inputs


BAD = {
    "y is None": (lambda X, y: LabelDenoiser(regressor()).fit(X, None), "target y is None"),
    "y too short": (lambda X, y: LabelDenoiser(regressor()).fit(X, y[:-1]), "inconsistent numbers"),
    "words": (
        lambda X, y: LabelDenoiser(regressor()).fit(X, y.astype(str)),
        "`y` must contain numbers, .* got dtype <U21. Encode the labels",
    ),
    "infinite": (
        lambda X, y: LabelDenoiser(regressor()).fit(X, y / 0.0),
        "`y` must be finite; got NaN or infinity",
    ),
    "columns": (
        lambda X, y: LabelDenoiser(regressor(2)).fit(X, y),
        "as many columns as the network has outputs, 2; got 1",
    ),
    "one class": (
        lambda X, y: LabelDenoiser(classifier()).fit(X, 0 * y),
        "`y` must contain at least two classes; got one class, 0",
    ),
    "unknown class": (
        lambda X, y: LabelDenoiser(classifier()).fit(X, y + 7),
        "`y` must contain only the classes 0, 1, 2; got 7",
    ),
    "two axes": (
        lambda X, y: LabelDenoiser(classifier()).fit(X, np.stack([y, y], 1)),
        r"`y` must have one class per sample, among 0, 1, 2; got shape \(30, 2\)",
    ),
    "numbers without an output": (
        lambda X, y: LabelDenoiser(classifier().module_).fit(X, y + 1),
        "`y` must contain only the classes 0, 1, 2; got 3",
    ),
    "one label for all": (
        lambda X, y: LabelDenoiser(classifier()).fit(X, y).label_quality(X, y[:1]),
        "inconsistent numbers",
    ),
    "no labels": (
        lambda X, y: LabelDenoiser(classifier()).fit(X, y).label_quality(X, None),
        "`y` must be the labels of X; got None",
    ),
    "another method than in fit": (
        lambda X, y: (
            LabelDenoiser(regressor(), method="soft").fit(X, y).set_params(method="unnormalized")
        ).transform(X),
        "`method` and `output` must be 'soft' and 'all', as in fit; got 'unnormalized'",
    ),
    "another output than in fit": (
        lambda X, y: (
            LabelDenoiser(regressor(), method="soft").fit(X, y).set_params(output=0).transform(X)
        ),
        "`method` and `output` must be 'soft' and 'all', as in fit; got 'soft' and 0",
    ),
    "a tuple": (
        lambda X, y: LabelDenoiser(Pair(), output=lambda raw: raw[0]).fit(X, y),
        "`estimator` must return one tensor with a row per sample, .* got a tuple",
    ),
    "other columns": (
        lambda X, y: LabelDenoiser(regressor()).fit(X, y).score(X, np.stack([y, y], 1)),
        "`y` must have as many columns as in fit, 1; got 2",
    ),
    "not fitted": (lambda X, y: LabelDenoiser(regressor()).denoising(X), "not fitted yet"),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("name", BAD)
def test_invalid_input_raises_an_error_that_names_it(name):
    call, message = BAD[name]
    with pytest.raises((ValueError, NotFittedError, UnsupportedNetworkError), match=message):
        call(make_samples(), np.arange(N_SAMPLES) % 3)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0]])
def test_equal_samples_are_distinguished_by_their_labels(order):
    X, y = np.array([[0.0], [0.0], [3.0]]), np.array([0.0, 10.0, 0.0])
    network = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    denoiser = LabelDenoiser(network, alpha=100).fit(X, y)
    expected = denoiser.label_quality(X, y)
    np.testing.assert_array_equal(denoiser.label_quality(X[order], y[order]), expected[order])
    np.testing.assert_array_equal(denoiser.label_quality(X[1:2], y[1:2]), expected[1:2])
    assert denoiser.leave_one_out(X[1:2], y[1:2]) == pytest.approx(0, abs=1e-9)


def test_probabilities_of_a_bare_network_are_recognised():
    net, X = classifier(), make_samples()
    y = np.arange(N_SAMPLES) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare_network = nn.Sequential(net.module_, nn.Softmax(dim=1))
        bare, expected = (
            LabelDenoiser(network, method="unnormalized").fit(X, y)
            for network in (bare_network, net)
        )
    assert bare.stationarity_ == pytest.approx(expected.stationarity_)
    for name in ("labels", "predictions", "shift"):
        values = (getattr(denoiser.denoising(), name) for denoiser in (bare, expected))
        np.testing.assert_allclose(*values, atol=1e-9)


def test_the_classes_of_a_bare_network_do_not_depend_on_which_ones_occur():
    network, X = classifier().module_, make_samples()
    y = np.arange(N_SAMPLES) % 3
    whole, part = (LabelDenoiser(network).fit(X[kept], y[kept]) for kept in (y >= 0, y > 0))
    np.testing.assert_array_equal(whole._target.classes, part._target.classes)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@methods
def test_a_large_mean_of_the_labels_costs_no_precision(method):
    net, X = regressor(), make_samples().float()
    net.module_.float()
    y = np.random.default_rng(0).normal(size=N_SAMPLES)
    means, expected = (
        fit_denoiser(net, X, labels, method).transform(X) for labels in (y + 1e6, y.copy())
    )
    np.testing.assert_allclose(means - 1e6, expected, atol=1e-4)


def test_weights_whose_squares_underflow_count_as_zero():
    network = nn.Linear(3, 1, bias=False).double()
    X = np.array([[1, 0.05, 0], [1, 0.06, 0], [1, -0.05, 0.01]])
    denoiser = LabelDenoiser(network, alpha=128).fit(X, np.array([0.0, 1, 5]))
    with pytest.warns(NoNeighborsWarning, match="1 of 1 samples"):
        denoising = denoiser.denoising(np.array([[0.02, 0, 1.0]]))
    np.testing.assert_allclose(denoising.variance_factor, 1 / 3)
    np.testing.assert_allclose(denoising.labels, 2)


def test_a_plain_net_with_a_criterion_for_classes_predicts_classes():
    module, X = classifier().module_, make_samples()
    y = np.arange(N_SAMPLES) % 3
    net = skorch.NeuralNet(module, criterion=nn.CrossEntropyLoss, device="cpu").initialize()
    expected = LabelDenoiser(module).fit(X, y).denoising()
    np.testing.assert_allclose(LabelDenoiser(net).fit(X, y).denoising().shift, expected.shift)


@pytest.mark.parametrize("make", [classifier, one_logit_classifier])
def test_classes_can_be_in_a_column(make):
    net, X = make(), make_samples()
    y = np.arange(N_SAMPLES) % 2
    expected = LabelDenoiser(net).fit(X, y).label_quality(X, y)
    quality = LabelDenoiser(net).fit(X, y[:, None]).label_quality(X, y[:, None])
    np.testing.assert_array_equal(quality, expected)


def test_the_default_network_treats_whole_numbers_in_a_column_as_numbers():
    X, y = np.random.default_rng(0).normal(size=(N_SAMPLES, 2)), np.arange(N_SAMPLES)[:, None]
    assert LabelDenoiser(random_state=0).fit(X, y).transform(X).shape == (N_SAMPLES, 1)


def test_an_unknown_class_counts_as_an_error():
    X, y = np.eye(4), np.array(["a", "b", "a", "b"])
    denoiser = LabelDenoiser("features", method="soft").fit(X, y)
    with pytest.warns(NoNeighborsWarning):
        assert denoiser.score(X, ["c"] * 4) == 0
    with (
        pytest.warns(NoNeighborsWarning),
        pytest.raises(ValueError, match="`y` must contain only the classes a, b; got c"),
    ):
        denoiser.label_quality(X, ["c"] * 4)


def test_output_columns_have_names():
    net, X = classifier(), make_samples()
    frame = LabelDenoiser(net).fit(X, np.arange(N_SAMPLES) % 3).get_feature_names_out()
    np.testing.assert_array_equal(frame, [f"labeldenoiser{index}" for index in range(3)])


@pytest.fixture(scope="module")
def noisy_labels():
    """Return a module with three logits, trained on independent labels of which some are flipped.

    The other results are the samples, the labels, and where they are flipped.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 3)).astype(np.float32)
    y = (X > 0).astype(np.float32)
    flipped = rng.random(y.shape) < 0.05
    y = np.where(flipped, 1 - y, y)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))
    net = skorch.NeuralNet(
        module,
        criterion=nn.BCEWithLogitsLoss,
        optimizer=torch.optim.Adam,
        lr=0.03,
        max_epochs=20,
        train_split=None,
        verbose=0,
    )
    return net.fit(X, y).module_, X, y, flipped


class OwnLoss(skorch.NeuralNetClassifier):
    """Classifier whose criterion NLLLoss takes the outputs themselves: log-probabilities."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return skorch.NeuralNet.get_loss(self, y_pred, y_true, *args, **kwargs)


def end_in_log_softmax(core, kind):
    module = nn.Sequential(core, nn.LogSoftmax(dim=1))
    return kind(module, criterion=nn.NLLLoss, device="cpu").initialize()


log_softmax_kinds = pytest.mark.parametrize(
    "kind", [skorch.NeuralNet, skorch.NeuralNetRegressor, OwnLoss]
)


@log_softmax_kinds
def test_log_probabilities_are_as_far_from_a_stationary_point_as_their_logits(kind):
    net, X = classifier(), make_samples()
    y = np.arange(N_SAMPLES) % 3
    logarithms = end_in_log_softmax(net.module_, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, denoiser = (
            LabelDenoiser(network, method="unnormalized").fit(X, y) for network in (net, logarithms)
        )
    assert denoiser.stationarity_ == pytest.approx(expected.stationarity_)
    for name in ("labels", "predictions", "shift", "variance_factor"):
        results = (getattr(each.denoising(), name) for each in (denoiser, expected))
        np.testing.assert_allclose(*results, rtol=1e-6, atol=1e-9)


@log_softmax_kinds
@pytest.mark.parametrize("method", ["power", "soft"])
def test_log_probabilities_and_probabilities_give_the_same_means(kind, method):
    core, X = classifier().module_, make_samples()
    y = np.arange(N_SAMPLES) % 3
    softmax = skorch.NeuralNetClassifier(
        nn.Sequential(core, nn.Softmax(dim=1)), criterion=nn.NLLLoss, device="cpu"
    ).initialize()
    expected, denoiser = (
        fit_denoiser(net, X, y, method) for net in (softmax, end_in_log_softmax(core, kind))
    )
    np.testing.assert_allclose(denoiser.label_quality(X, y), expected.label_quality(X, y))
    for name in ("labels", "predictions", "shift", "variance_factor"):
        results = (getattr(each.denoising(), name) for each in (denoiser, expected))
        np.testing.assert_allclose(*results, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        denoiser.denoising().predictions + denoiser.denoising().shift,
        core(X).softmax(dim=1).detach().numpy(),
    )


#: Nets around logits of independent labels that must all give the same results.
SAME_LABELS = {
    "classifier": lambda core: skorch.NeuralNetClassifier(core, criterion=nn.BCEWithLogitsLoss),
    "probabilities": lambda core: skorch.NeuralNet(
        nn.Sequential(core, nn.Sigmoid()), criterion=nn.BCELoss
    ),
    "classifier of probabilities": lambda core: skorch.NeuralNetClassifier(
        nn.Sequential(core, nn.Sigmoid()), criterion=nn.BCELoss
    ),
    "soft margin": lambda core: skorch.NeuralNet(core, criterion=nn.MultiLabelSoftMarginLoss),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@methods
@pytest.mark.parametrize("name", SAME_LABELS)
def test_nets_with_the_same_probabilities_of_labels_give_the_same_result(
    noisy_labels, name, method
):
    core, X, y, _ = noisy_labels
    plain = skorch.NeuralNet(core, criterion=nn.BCEWithLogitsLoss).initialize()
    first, second = (
        fit_denoiser(net, X, y, method) for net in (plain, SAME_LABELS[name](core).initialize())
    )
    np.testing.assert_allclose(first.label_quality(X, y), second.label_quality(X, y), atol=2e-4)
    for part in ("labels", "predictions", "shift"):
        expected, result = (getattr(d.denoising(), part) for d in (first, second))
        np.testing.assert_allclose(result, expected, atol=2e-4)


@pytest.mark.parametrize("dtype", [bool, int, np.float64, object])
def test_several_labels_are_denoised_one_by_one(noisy_labels, dtype):
    core, X, y, flipped = noisy_labels
    net = skorch.NeuralNet(core, criterion=nn.BCEWithLogitsLoss).initialize()
    labels = y.astype(bool).astype(dtype)
    denoiser = LabelDenoiser(net).fit(X, labels)
    shares = denoiser.transform(X)
    assert shares.min() >= 0 and shares.max() <= 1
    predicted = denoiser.predict(X)
    assert predicted.dtype == np.int64
    np.testing.assert_array_equal(predicted, shares > 0.5)
    assert (predicted == (X > 0)).mean() > 0.95
    others = denoiser.leave_one_out(X, labels)
    assert denoiser.score(X, labels) == accuracy_score(y, others > 0.5)
    wrong = flipped.any(axis=1)
    assert roc_auc_score(wrong, -denoiser.label_quality(X, labels)) > 0.9
    assert wrong[denoiser.label_issues(X, labels)[:10]].mean() > 0.8
    denoising = denoiser.denoising()
    probabilities = torch.sigmoid(core(torch.as_tensor(X))).detach().numpy()
    np.testing.assert_allclose(
        denoising.predictions + denoising.shift, probabilities, rtol=1e-5, atol=1e-6
    )


def test_features_of_several_labels_give_the_means_and_qualities_of_their_network(noisy_labels):
    core, X, y, _ = noisy_labels
    net = skorch.NeuralNet(core, criterion=nn.BCEWithLogitsLoss).initialize()
    features = GradientFeaturizer(net).fit_transform(X)
    expected, denoiser = LabelDenoiser(net).fit(X, y), LabelDenoiser("features").fit(features, y)
    for method in ("label_quality", "leave_one_out", "score"):
        results = (getattr(each, method) for each in (denoiser, expected))
        first, second = (result(Z, y) for result, Z in zip(results, (features, X), strict=True))
        np.testing.assert_allclose(first, second, atol=1e-3)
    np.testing.assert_array_equal(denoiser.predict(features), expected.predict(X))


def test_pickles_of_several_labels_give_the_same_result(noisy_labels):
    core, X, y, _ = noisy_labels
    net = skorch.NeuralNet(core, criterion=nn.BCEWithLogitsLoss).initialize()
    denoiser = LabelDenoiser(net).fit(X, y)
    loaded = pickle.loads(pickle.dumps(denoiser))
    np.testing.assert_array_equal(loaded.predict(X), denoiser.predict(X))
    np.testing.assert_array_equal(loaded.denoising(X).shift, denoiser.denoising(X).shift)


@pytest.mark.parametrize("last", [[], [nn.Sigmoid()]], ids=["logit", "probability"])
def test_a_plain_net_with_one_logit_equals_a_binary_classifier(last):
    core, X = one_logit_classifier().module_, make_samples()
    y = np.arange(N_SAMPLES) % 2
    expected = LabelDenoiser(
        skorch.NeuralNetClassifier(core, criterion=nn.BCEWithLogitsLoss).initialize()
    ).fit(X, y)
    criterion = nn.BCELoss if last else nn.BCEWithLogitsLoss
    plain = skorch.NeuralNet(nn.Sequential(core, *last), criterion=criterion).initialize()
    denoiser = LabelDenoiser(plain).fit(X, y[:, None].astype(float))
    np.testing.assert_array_equal(denoiser.predict(X), expected.predict(X))
    np.testing.assert_allclose(
        denoiser.denoising().shift, expected.denoising().shift, rtol=1e-6, atol=1e-9
    )


class NonFinite(nn.Module):
    """Network whose outputs for samples with a large first feature are not finite."""

    def __init__(self, value, outputs):
        super().__init__()
        self.layer, self.value = nn.Linear(3, outputs).double(), value

    def forward(self, inputs):
        outputs = self.layer(inputs)
        return torch.where(inputs[:, :1] > 100, self.value * torch.ones_like(outputs), outputs)


NON_FINITE = {
    "regression": lambda value: NonFinite(value, 1),
    "classes": lambda value: skorch.NeuralNetClassifier(
        NonFinite(value, 3), criterion=nn.CrossEntropyLoss
    ).initialize(),
    "several labels": lambda value: skorch.NeuralNet(
        NonFinite(value, 3), criterion=nn.BCEWithLogitsLoss
    ).initialize(),
}


@pytest.mark.parametrize("name", NON_FINITE)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("estimator", [LabelDenoiser, FitDiagnostics])
def test_predictions_that_are_not_finite_raise_an_error(estimator, value, name):
    X = make_samples()
    X[17, 0] = 1000
    y = np.arange(N_SAMPLES) % 3
    y = (y[:, None] == np.arange(3)) if name == "several labels" else y
    with pytest.raises(UnsupportedNetworkError, match=r"must return finite outputs.* row 17"):
        estimator(NON_FINITE[name](value)).fit(X, y)


def test_predictions_for_queries_that_are_not_finite_raise_an_error():
    X, y = make_samples(), np.arange(N_SAMPLES) % 3
    denoiser = LabelDenoiser(NON_FINITE["classes"](np.nan)).fit(X, y)
    with pytest.raises(UnsupportedNetworkError, match="must return finite outputs"):
        denoiser.denoising(X[:4] + 1000)


@pytest.mark.parametrize("names", [["a", None], [None, None], ["a", 1.0]], ids=str)
@pytest.mark.parametrize("estimator", [None, "features", nn.Linear(3, 2).double()])
@pytest.mark.parametrize("kind", [LabelDenoiser, FitDiagnostics])
def test_missing_labels_raise_an_error_before_anything_is_trained(kind, estimator, names):
    X, y = np.eye(3)[[0, 1, 2, 0]], np.array(names * 2, dtype=object)
    with pytest.raises(ValueError, match="`y` must contain only numbers, or only names"):
        kind(estimator).fit(X, y)
