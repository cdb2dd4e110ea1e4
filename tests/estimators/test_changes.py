"""Networks that change after `fit`: new values, or an error, but never a mixture of old and new."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import (
    ActiveLearningSampler,
    ChangedNetworkError,
    FitDiagnostics,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    featurize,
)
from sknetsim.estimators import _changes

# A network that is not at a stationary point of its loss is warned of.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Network(nn.Module):
    """Small network with all that may change: weights, statistics, attributes, and layers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.1))
        self.head = nn.Linear(8, 2)
        self.temperature = 1.0
        self.scales = [1.0, 1.0]
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        activations = self.body(x)
        self.last = activations.detach()
        return self.head(activations) * self.scales[0] / self.temperature


@pytest.fixture
def network():
    return Network().double().eval()


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    X, Q = generator.normal(size=(24, 3)), generator.normal(size=(6, 3))
    return X, Q, (X[:, 0] > 0).astype(int)


def train(network):
    """Take one step of training, as an optimiser does."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.ones(4, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()


POWER = {"method": "power", "dimension": 3.0}
LANDMARKS = {"n_components": 5, "random_state": 0}
SKETCH = {"method": "sketch", "n_components": 16, "random_state": 0}
INDEX = LANDMARKS | {"algorithm": "faiss", "n_neighbors": 2}
UNNORMALIZED = {"method": "unnormalized"}

#: Queries after the network was trained on. They are computed from the new network only.
NEW = {
    "kernel": (NetworkKernel, {}, lambda e, X, Q, y: e(Q)),
    "kernel of all pairs with a gradient": (
        NetworkKernel,
        {},
        lambda e, X, Q, y: e(X, eval_gradient=True)[0],
    ),
    "kernel of two samples": (NetworkKernel, {}, lambda e, X, Q, y: e(Q[0], X[0])),
    "kernel with the fitted samples": (NetworkKernel, {}, lambda e, X, Q, y: e.transform(Q)),
    "kernel, diagonal": (NetworkKernel, {"normalize": False}, lambda e, X, Q, y: e.diag(Q)),
    "kernel, matrices": (NetworkKernel, {}, lambda e, X, Q, y: e.matrix(Q)),
    "kernel, influence": (NetworkKernel, {}, lambda e, X, Q, y: e.influence(Q)),
    "perceptual": (PerceptualKernel, {}, lambda e, X, Q, y: e.transform(Q)),
    "features": (GradientFeaturizer, {}, lambda e, X, Q, y: e.transform(Q)),
    "sketch": (GradientFeaturizer, SKETCH, lambda e, X, Q, y: e.transform(Q)),
    "count": (NetworkDensity, {"method": "power"}, lambda e, X, Q, y: e.neighbor_count(Q)),
    "density": (NetworkDensity, POWER, lambda e, X, Q, y: e.score_samples(X)),
    "density, total": (NetworkDensity, POWER, lambda e, X, Q, y: e.score(Q)),
    "density, offset": (NetworkDensity, POWER, lambda e, X, Q, y: e.offset_),
    "density, outliers": (NetworkDensity, POWER, lambda e, X, Q, y: e.decision_function(Q)),
    "reliability": (NetworkDensity, {}, lambda e, X, Q, y: e.reliability(Q)),
    "neighbours": (NetworkNeighbors, {}, lambda e, X, Q, y: e.kneighbors(Q)[0]),
    "neighbours among themselves": (NetworkNeighbors, {}, lambda e, X, Q, y: e.kneighbors()[0]),
    "neighbours, graph": (NetworkNeighbors, {}, lambda e, X, Q, y: e.transform(Q).toarray()),
    "labels": (LabelDenoiser, {}, lambda e, X, Q, y: e.transform(Q)),
    "labels of others": (LabelDenoiser, {}, lambda e, X, Q, y: e.leave_one_out(X, y)),
    "labels, accuracy": (LabelDenoiser, {}, lambda e, X, Q, y: e.score(X, y)),
    "labels, quality": (LabelDenoiser, {}, lambda e, X, Q, y: e.label_quality(X, y)),
    "sampler": (
        ActiveLearningSampler,
        {"random_state": 0},
        lambda e, X, Q, y: e.query(Q, 2, return_utilities=True)[1][0],
    ),
}

#: Queries that would combine values from `fit` with gradients of the new network.
MIXED = {
    "landmarks": (GradientFeaturizer, LANDMARKS, lambda e, X, Q, y: e.transform(Q)),
    "sum": (NetworkDensity, {}, lambda e, X, Q, y: e.neighbor_count(Q)),
    "sum, density": (NetworkDensity, {}, lambda e, X, Q, y: e.score_samples(Q)),
    "sum, offset": (NetworkDensity, {}, lambda e, X, Q, y: e.offset_),
    "sum, outliers": (NetworkDensity, {}, lambda e, X, Q, y: e.predict(Q)),
    "sum of features": (NetworkDensity, LANDMARKS, lambda e, X, Q, y: e.score_samples(Q)),
    "estimated dimension": (
        NetworkDensity,
        {"method": "threshold"},
        lambda e, X, Q, y: e.score_samples(Q),
    ),
    "estimated dimension, offset": (
        NetworkDensity,
        {"method": "power"},
        lambda e, X, Q, y: e.offset_,
    ),
    "count of features": (
        NetworkDensity,
        POWER | LANDMARKS,
        lambda e, X, Q, y: e.neighbor_count(Q),
    ),
    "neighbours by features": (NetworkNeighbors, LANDMARKS, lambda e, X, Q, y: e.kneighbors(Q)),
    "fitted neighbours by features": (
        NetworkNeighbors,
        LANDMARKS,
        lambda e, X, Q, y: e.kneighbors(),
    ),
    "neighbours within a radius": (
        NetworkNeighbors,
        LANDMARKS,
        lambda e, X, Q, y: e.radius_neighbors(Q),
    ),
    "reranked candidates": (
        NetworkNeighbors,
        LANDMARKS | {"n_candidates": 8},
        lambda e, X, Q, y: e.kneighbors(),
    ),
    "index": (NetworkNeighbors, INDEX, lambda e, X, Q, y: e.kneighbors(Q)),
    "index of fitted neighbours": (NetworkNeighbors, INDEX, lambda e, X, Q, y: e.kneighbors()),
    "labels, unnormalized": (LabelDenoiser, UNNORMALIZED, lambda e, X, Q, y: e.transform(Q)),
    "labels, soft": (LabelDenoiser, {"method": "soft"}, lambda e, X, Q, y: e.predict(Q)),
    "labels of others, soft": (
        LabelDenoiser,
        {"method": "soft"},
        lambda e, X, Q, y: e.label_issues(X, y),
    ),
    "labels by features": (LabelDenoiser, LANDMARKS, lambda e, X, Q, y: e.transform(Q)),
    "predictions": (LabelDenoiser, {}, lambda e, X, Q, y: e.denoising(Q)),
    "fitted predictions": (LabelDenoiser, {}, lambda e, X, Q, y: e.denoising()),
}

#: What each fitted attribute means after the network has changed.
DECISIONS = {
    "new": {
        "estimator_": "the network as it is now",
        "_offset": "offsets by the fingerprint of the network",
        "_labelled_features": "features by the fingerprint of the network",
        "_last": "gram matrix by the fingerprint of the network",
        "_rows": "Jacobians by the fingerprint of the network",
        "_key": "part of a key that contains the network",
    },
    "refused": {
        "_fitted_network": "contents with which those of the network are compared",
        "_projection": "landmarks, and for other projections the compared parameters",
        "_references": "features, with n_components",
        "_index": "index of features",
        "_sum": "sum of gradients",
        "_label_weights": "sums of gradients, predictions and features",
        "dimension_": "dimension of the gradients, if it was estimated",
    },
    "record of fit": {
        "made_with_": "the network in fit, by which loading recognises a change",
        "kernel_error_": "error of the features of the fitted samples",
        "recall_": "recall of the index of these features",
        "stationarity_": "stationarity of the network in fit",
        **{
            f"{name}_": "diagnosis of the network in fit; nothing is computed later"
            for name in (
                *("label_mean", "label_variance", "label_noise", "overfit", "underfit", "region"),
                *("prediction_mean", "prediction_variance", "prediction_noise"),
            )
        },
        "_common_squares": "part of the diagnosis",
        "_least_squares": "part of the diagnosis",
        "_least_noise": "part of the diagnosis",
        "_label_variance": "part of the diagnosis",
    },
    "independent of the network's weights": {
        **dict.fromkeys(["_X", "X_fit_", "_digests", "_dtype"], "the fitted samples"),
        "_labels_fit": "the labels of the fitted samples",
        **dict.fromkeys(["n_features_in_", "_sample_shape"], "the form of a sample"),
        **dict.fromkeys(["n_samples_fit_", "n_labelled_"], "the number of samples"),
        **dict.fromkeys(["n_components_", "_n_features_out"], "the number of features"),
        "_sample_weight": "the weights of the fitted samples",
        "_shown_in_fit": "warnings of the steps before the network",
        "_target": "the meaning of the labels",
        "_fitted_settings": "settings of the denoiser",
        "_seed": "seed of the sketch",
    },
}


@pytest.mark.parametrize(("kind", "params", "query"), NEW.values(), ids=NEW)
def test_a_trained_on_network_gives_what_a_new_fit_gives(network, data, kind, params, query):
    X, Q, y = data
    estimator = kind(network, **params).fit(X, y)
    before = query(estimator, X, Q, y)
    train(network)
    actual, expected = query(estimator, X, Q, y), query(kind(network, **params).fit(X, y), X, Q, y)
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    # Otherwise, this test would show nothing.
    assert "accuracy" in str(query) or not np.array_equal(before, expected) or np.size(before) == 1


def skip_without_package(params):
    """Skip a test that needs an index if its package is not installed."""
    if params.get("algorithm", "brute") == "faiss":
        pytest.importorskip("faiss")


@pytest.mark.parametrize(("kind", "params", "query"), MIXED.values(), ids=MIXED)
def test_values_from_fit_are_not_combined_with_a_trained_on_network(
    network, data, kind, params, query
):
    X, Q, y = data
    skip_without_package(params)
    estimator = kind(network, **params).fit(X, y)
    train(network)
    with pytest.raises(ChangedNetworkError, match=r"other parameters or buffers\. Call fit again"):
        query(estimator, X, Q, y)
    query(estimator.fit(X, y), X, Q, y)


def test_a_store_is_not_written_from_a_mixture(network, data, tmp_path):
    X, Q, _ = data
    featurizer = GradientFeaturizer(network, **LANDMARKS).fit(X)
    train(network)
    with pytest.raises(ChangedNetworkError):
        featurize(featurizer, Q, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "estimator",
    [
        *(kind(**params) for kind, params, _ in [*NEW.values(), *MIXED.values()]),
        FitDiagnostics(),
    ],
    ids=repr,
)
def test_the_meaning_of_each_fitted_attribute_after_a_change_is_decided(network, data, estimator):
    skip_without_package(estimator.get_params(deep=False))
    estimator = estimator.set_params(estimator=network).fit(data[0], data[2])
    fitted = vars(estimator).keys() - estimator.get_params(deep=False).keys()
    decided = set().union(*DECISIONS.values())
    assert fitted <= decided


def test_a_diagnosis_is_that_of_the_network_in_fit(network, data):
    X, _, y = data
    diagnostics = FitDiagnostics(network).fit(X, y)
    before = diagnostics.summary()
    train(network)
    assert diagnostics.summary() == before


def set_item(tensor, index, value):
    with torch.no_grad():
        tensor[index] = value


def edit_data(network):
    network.head.weight.data[1, 3] += 1e-6


def edit_memory(network):
    network.head.weight.detach().numpy()[0, 0] *= 2


def update_statistics(network):
    network.train()(torch.randn(5, 3, dtype=torch.float64))
    network.eval()


def replace_activation(network):
    network.body[2] = nn.Tanh()


def replace_head(network):
    network.head = nn.Linear(8, 2).double()


def load_other_weights(network):
    network.load_state_dict(Network().double().state_dict())


def double_outputs(module, inputs, output):
    return 2 * output


#: Changes of a network, and how the error names them.
CHANGES = {
    "step of an optimiser": (train, "parameters or buffers"),
    "load_state_dict": (load_other_weights, "parameters or buffers"),
    "in place": (lambda n: set_item(n.head.bias, 0, 3.0), "parameters or buffers"),
    "one element of data": (edit_data, "parameters or buffers"),
    "memory shared with numpy": (edit_memory, "parameters or buffers"),
    "statistics of BatchNorm": (update_statistics, "parameters or buffers"),
    "another layer": (replace_head, "parameters or buffers"),
    "another dtype": (lambda n: n.float(), "parameters or buffers"),
    "frozen layer": (lambda n: n.body.requires_grad_(False), "requires_grad of a parameter"),
    "another activation": (replace_activation, "layers, attributes or hooks"),
    "number": (lambda n: setattr(n, "temperature", 2.0), "layers, attributes or hooks"),
    "number of a layer": (lambda n: setattr(n.body[2], "negative_slope", 0.9), "layers, attr"),
    "item of a list": (lambda n: n.scales.__setitem__(0, 3.0), "layers, attributes or hooks"),
    "hook": (lambda n: n.head.register_forward_hook(double_outputs), "layers, attributes or"),
    "another forward": (lambda n: setattr(n.head, "forward", torch.tanh), "layers, attributes or"),
    "weight norm": (lambda n: nn.utils.parametrizations.weight_norm(n.head), "parameters or buff"),
    "rows in another order": (lambda n: n.head.weight.data.copy_(n.head.weight.flip(0)), "param"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_network_is_noticed(network, data, change, message):
    X, Q, _ = data
    estimator = GradientFeaturizer(network, **LANDMARKS).fit(X)
    change(network)
    with pytest.raises(ChangedNetworkError, match=f"{message}.*Call fit"):
        estimator.transform(Q)


def look_at(network):
    network(torch.ones(2, 3, dtype=torch.float64)).sum().backward()


def record_activations(network):
    network.body.register_forward_hook(lambda module, inputs, output: None)


def freeze_and_unfreeze(network):
    network.requires_grad_(False).requires_grad_(True)


def move_memory(network):
    network.head.weight.data = network.head.weight.data.clone()


UNCHANGED = {
    "train mode": lambda n: n.train(),
    "forward and backward pass": look_at,
    "hook without an effect": record_activations,
    "requires_grad and back": freeze_and_unfreeze,
    "the same weights loaded": lambda n: n.load_state_dict(copy.deepcopy(n.state_dict())),
    "weights in other memory": move_memory,
    "number without an effect": lambda n: setattr(n, "note", "read"),
    "momentum of BatchNorm": lambda n: setattr(n.body[1], "momentum", 0.5),
}


@pytest.mark.parametrize("change", UNCHANGED.values(), ids=UNCHANGED)
def test_what_has_no_effect_raises_no_error(network, data, change):
    X, Q, _ = data
    estimator = NetworkDensity(network).fit(X)
    before = estimator.score_samples(Q)
    change(network)
    np.testing.assert_array_equal(estimator.score_samples(Q), before)


def test_an_effect_is_evaluated_once(network, data, monkeypatch):
    X, Q, _ = data
    estimator, evaluations = NetworkDensity(network).fit(X), []
    iterate = _changes._iterate_outputs
    monkeypatch.setattr(
        _changes, "_iterate_outputs", lambda *args: evaluations.append(1) or iterate(*args)
    )
    network(torch.ones(2, 3, dtype=torch.float64))
    estimator.score_samples(Q)
    estimator.score_samples(Q)
    assert len(evaluations) == 1


@pytest.mark.parametrize("size", [3, 1021, 2**14 + 1, 2**17])
def test_the_digest_tells_each_element_and_its_place(size):
    weights = torch.randn(size)
    part = nn.ParameterList([nn.Parameter(weights)])
    before = _changes.digest_tensors(part)
    for index in (0, size // 2, size - 1):
        saved = part[0].data[index].item()
        part[0].data[index] = np.nextafter(np.float32(saved), np.float32(9)).item()
        assert _changes.digest_tensors(part) != before
        part[0].data[index] = saved
    assert _changes.digest_tensors(part) == before
    part[0].data.copy_(weights.clone().roll(size // 2))
    assert _changes.digest_tensors(part) != before


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(3, 2).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.randn(5), 0.1, 0, torch.qint8),
        lambda: torch.randn(4).bfloat16(),
        lambda: torch.randn(4) > 0,
        lambda: torch.randn(3, dtype=torch.complex64),
        lambda: torch.tensor(1.0),
        lambda: torch.empty(0),
        lambda: torch.randn(3, 4, 2).permute(2, 0, 1),
    ],
)
def test_buffers_of_each_kind_are_digested(make):
    module = nn.Module()
    module.register_buffer("buffer", make())
    before = _changes.digest_tensors(module)
    assert _changes.digest_tensors(copy.deepcopy(module)) == before
    module.buffer = torch.ones(7)
    assert _changes.digest_tensors(module) != before


def test_a_sparse_buffer_is_not_made_dense():
    module = nn.Module()
    indices = torch.tensor([[0, 10**8], [5, 7]])
    graph = torch.sparse_coo_tensor(indices, torch.ones(2), (10**9, 10**9), check_invariants=True)
    module.register_buffer("graph", graph)
    before = _changes.digest_tensors(module)
    module.graph._values()[1] = 3
    assert _changes.digest_tensors(module) != before


@pytest.fixture
def net(data):
    X, _, y = data
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        Network, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=2, lr=0.1
    )
    return net.fit(X.astype(np.float32), y.astype(np.int64))


@pytest.mark.parametrize("how", ["partial_fit", "fit", "load_params", "initialize"])
@pytest.mark.parametrize("wrap", [lambda net: net, FrozenEstimator], ids=["net", "frozen"])
def test_a_net_that_is_trained_on_is_noticed(net, data, tmp_path, how, wrap):
    X, Q, y = (part.astype(np.float32) for part in data)
    y = y.astype(np.int64)
    other = tmp_path / "other.pt"
    copy.deepcopy(net).partial_fit(X, y).save_params(f_params=other)
    density = NetworkDensity(wrap(net)).fit(X)
    changes = {
        "partial_fit": lambda: net.partial_fit(X, y),
        "fit": lambda: net.fit(X, 1 - y),
        "load_params": lambda: net.load_params(f_params=other),
        "initialize": net.initialize,
    }
    changes[how]()
    with pytest.raises(ChangedNetworkError, match=r"copy\.deepcopy\(net\)"):
        density.score_samples(Q)


def test_a_net_whose_old_weights_are_loaded_is_accepted_again(net, data, tmp_path):
    X, Q, y = (part.astype(np.float32) for part in data)
    density = NetworkDensity(net).fit(X)
    before = density.score_samples(Q)
    net.save_params(f_params=tmp_path / "old.pt")
    net.partial_fit(X, y.astype(np.int64))
    net.load_params(f_params=tmp_path / "old.pt")
    np.testing.assert_array_equal(density.score_samples(Q), before)


def test_a_copy_of_the_net_stays_as_it_was(net, data):
    X, Q, y = (part.astype(np.float32) for part in data)
    density = NetworkDensity(copy.deepcopy(net)).fit(X)
    before = density.score_samples(Q)
    net.partial_fit(X, y.astype(np.int64))
    np.testing.assert_array_equal(density.score_samples(Q), before)


STEPS = {
    "refitted": (lambda step, X: step.fit(5 * X), True),
    "edited": (lambda step, X: set_mean(step, 1), True),
    "refitted on the same samples": (lambda step, X: step.fit(X), False),
}


def set_mean(step, index):
    step.mean_[index] += 0.5


@pytest.mark.parametrize(("change", "noticed"), STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("make", [StandardScaler, lambda: PCA(3, svd_solver="full")])
def test_a_change_of_the_steps_before_the_network_is_noticed(net, data, make, change, noticed):
    X, Q = (part.astype(np.float32) for part in data[:2])
    step = make().fit(X)
    density = NetworkDensity(make_pipeline(step, net)).fit(X)
    before = density.score_samples(Q)
    change(step, X)
    if noticed:
        with pytest.raises(ChangedNetworkError, match="other steps before the network"):
            density.score_samples(Q)
    else:
        np.testing.assert_array_equal(density.score_samples(Q), before)


@pytest.mark.parametrize("output", ["all", "loss"])
def test_the_criterion_is_compared_if_the_loss_is_differentiated(net, data, output):
    X, Q = (part.astype(np.float32) for part in data[:2])
    density = NetworkDensity(net, output=output).fit(X)
    density.score_samples(Q)
    net.criterion_.label_smoothing = 0.3
    if output == "all":
        density.score_samples(Q)
        return
    with pytest.raises(ChangedNetworkError, match="another criterion"):
        density.score_samples(Q)


def test_a_small_output_is_compared_by_its_own_scale(network, data):
    X, Q, _ = data
    network.temperature = 1e9
    density = NetworkDensity(network).fit(X)
    network.temperature = 2e9
    with pytest.raises(ChangedNetworkError):
        density.score_samples(Q)


def test_the_sampler_computes_labelled_features_again_if_a_step_or_requires_grad_changes(net, data):
    X, Q = (part.astype(np.float32) for part in data[:2])
    scaler = StandardScaler().fit(X)
    piped = make_pipeline(scaler, net)
    sampler = ActiveLearningSampler(piped, strategy="kcenter").fit(X)
    for change in (lambda: scaler.fit(3 * X), lambda: net.module_.body.requires_grad_(False)):
        sampler.score_samples(Q)
        change()
        expected = ActiveLearningSampler(piped, strategy="kcenter").fit(X).score_samples(Q)
        np.testing.assert_array_equal(sampler.score_samples(Q), expected)


def test_caches_of_kernels_and_offsets_follow_requires_grad(network, data):
    X, Q, _ = data
    kernel, density = NetworkKernel(network), NetworkDensity(network, **POWER).fit(X)
    kernel(Q[0], Q[1])
    kernel(Q, eval_gradient=True)
    offset = density.offset_
    network.body.requires_grad_(False)
    gram = NetworkKernel(network)(Q)
    assert kernel(Q[0], Q[1]) == pytest.approx(gram[0, 1], abs=1e-12)
    np.testing.assert_allclose(kernel(Q, eval_gradient=True)[0], gram)
    assert density.offset_ == NetworkDensity(network, **POWER).fit(X).offset_ != offset


@pytest.mark.parametrize(
    "changed",
    [{"output": "predicted"}, {"parameters": "head.*"}, {"input_shape": (1, 3)}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_gradients_than_in_fit_are_refused(network, data, changed):
    X, Q, _ = data
    density = NetworkDensity(network).fit(X).set_params(**changed)
    with pytest.raises(ChangedNetworkError, match=f"`{next(iter(changed))}` must select"):
        density.score_samples(Q)


@pytest.mark.parametrize("params", [{}, SKETCH], ids=["exact", "sketch"])
def test_features_of_other_parameters_are_refused(network, data, params):
    X, Q, _ = data
    featurizer = GradientFeaturizer(network, **params).fit(X)
    network.body.requires_grad_(False)
    with pytest.raises(ChangedNetworkError, match="requires_grad of a parameter"):
        featurizer.transform(Q)


def test_parameters_that_are_not_compared_may_be_frozen(network, data):
    X, Q, _ = data
    density = NetworkDensity(network, parameters="head.*").fit(X)
    before = density.score_samples(Q)
    network.body.requires_grad_(False)
    np.testing.assert_array_equal(density.score_samples(Q), before)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda value: pickle.loads(pickle.dumps(value))}


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(
    "estimator",
    [NetworkDensity(), LabelDenoiser(method="unnormalized"), GradientFeaturizer(**LANDMARKS)],
    ids=repr,
)
def test_a_copy_notices_changes_of_its_own_network_only(network, data, make_copy, estimator):
    X, Q, y = data
    query = "score_samples" if isinstance(estimator, NetworkDensity) else "transform"
    estimator = estimator.set_params(estimator=network).fit(X, y)
    before = getattr(estimator, query)(Q)
    copied = make_copy(estimator)
    train(network)
    np.testing.assert_allclose(getattr(copied, query)(Q), before, atol=1e-12)
    train(copied.estimator_)
    with pytest.raises(ChangedNetworkError):
        getattr(copied, query)(Q)


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("change", ["weights", "temperature"])
@pytest.mark.filterwarnings("ignore::sknetsim.LoadedElsewhereWarning")
def test_a_change_before_the_copy_is_noticed_after_it(network, data, make_copy, change):
    X, Q, _ = data
    density = NetworkDensity(network).fit(X)
    train(network) if change == "weights" else setattr(network, "temperature", 3.0)
    with pytest.raises(ChangedNetworkError):
        make_copy(density).score_samples(Q)


def first_output(raw):
    return raw[:, :1]


def test_other_versions_are_no_change_of_the_network(net, data, monkeypatch):
    X, Q = (part.astype(np.float32) for part in data[:2])
    piped = make_pipeline(StandardScaler().fit(X), net)
    density = NetworkDensity(piped, output=first_output).fit(X)
    before = density.score_samples(Q)
    monkeypatch.setattr(_changes, "get_versions", lambda: {"python": "4.0"})
    # As if the code of the step and of the output had another form.
    monkeypatch.setattr(_changes, "fingerprint_value", lambda value: "another")
    np.testing.assert_array_equal(copy.deepcopy(density).score_samples(Q), before)


def test_features_never_change(data):
    X, _, _ = data
    features = GradientFeaturizer(Network().double().eval()).fit_transform(X)
    density = NetworkDensity("features").fit(features)
    assert np.isfinite(density.set_params(output="predicted").score_samples(features)).all()


def test_rows_are_left_out_after_a_change_of_dtype(network, data):
    """Digests of the fitted samples and of the queries are taken in one dtype."""
    X, _, y = data
    density = NetworkDensity(network, **POWER).fit(X)
    denoiser = LabelDenoiser(network).fit(X, y)
    network.float()
    expected = NetworkDensity(network, **POWER).fit(X).score_samples(X)
    np.testing.assert_allclose(density.score_samples(X), expected, atol=1e-4)
    expected = LabelDenoiser(network).fit(X, y).leave_one_out(X)
    np.testing.assert_allclose(denoiser.leave_one_out(X), expected, atol=1e-4)


class Trainer(NetworkDensity):
    """Density whose network is trained while `fit` runs, as by another thread."""

    def _fit_projection(self, source, X):
        train(self.estimator)
        super()._fit_projection(source, X)


class DiagnosticsTrainer(FitDiagnostics):
    """Diagnosis whose network is trained while `fit` runs."""

    def _fit_projection(self, source, X):
        train(self.estimator)
        super()._fit_projection(source, X)


class FailingTrainer(NetworkDensity):
    """Density whose `fit` fails because the network is trained while it runs."""

    def _fit_projection(self, source, X):
        train(self.estimator)
        raise RuntimeError("one of the variables needed for gradient computation has been modified")


def test_an_error_because_the_network_changes_names_the_change(network, data):
    with pytest.raises(ChangedNetworkError, match="must not change while fit runs") as caught:
        FailingTrainer(network).fit(data[0])
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("kind", [Trainer, DiagnosticsTrainer])
def test_a_network_that_changes_while_fit_runs_raises_an_error(network, data, kind):
    X, Q, y = data
    estimator = kind(network)
    with pytest.raises(ChangedNetworkError, match="must not change while fit runs"):
        estimator.fit(X, y)
    with pytest.raises(NotFittedError):
        estimator.score_samples(Q) if kind is Trainer else estimator.summary()


def test_partial_fit_of_the_sampler_takes_a_network_that_was_trained_on(network, data):
    X, Q, _ = data
    sampler = ActiveLearningSampler(network, random_state=0).fit(X[:12])
    train(network)
    sampler.partial_fit(X[12:])
    expected = ActiveLearningSampler(network, random_state=0).fit(X).query(Q, 3)
    np.testing.assert_array_equal(sampler.query(Q, 3), expected)


def test_searches_share_the_trained_network(net, data):
    X, _, y = (part.astype(np.float32) for part in data)
    search = GridSearchCV(NetworkDensity(net), {"method": ["soft", "power"]}).fit(X)
    assert search.best_estimator_.estimator_ is net
    piped = make_pipeline(GradientFeaturizer(net, **LANDMARKS), LogisticRegression())
    search = GridSearchCV(piped, {"logisticregression__C": [0.1, 1.0]}, error_score="raise")
    assert search.fit(X, y).predict(X).shape == (24,)


def test_the_cache_of_a_featurizer_does_not_hide_a_change(network, data, tmp_path):
    X, Q, _ = data
    featurizer = GradientFeaturizer(network, memory=str(tmp_path), **LANDMARKS).fit(X)
    featurizer.transform(Q)
    train(network)
    with pytest.raises(ChangedNetworkError):
        featurizer.transform(Q)
    expected = GradientFeaturizer(network, **LANDMARKS).fit(X).transform(Q)
    np.testing.assert_array_equal(featurizer.fit(X).transform(Q), expected)
