"""PerceptualKernel compared with its formula, from activations recorded by hooks."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.svm import SVC
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import NetworkKernel, PerceptualKernel, UnsupportedNetworkError, ZeroGradientWarning

from ..cases import NETWORKS, build

BY_NAME = {case.name: case for case in NETWORKS}


def compute_activations(network, X, layers):
    """Return the inputs of the layers at each sample, divided by the root of their number."""
    network.eval()
    rows = []
    for index in range(len(X)):
        recorded = {name: [] for name in layers}
        handles = [
            network.get_submodule(name).register_forward_pre_hook(
                lambda layer, args, calls=recorded[name]: calls.append(args[0].detach().clone())
            )
            for name in layers
        ]
        network(X[index : index + 1])
        for handle in handles:
            handle.remove()
        flat = [torch.cat([call.flatten() for call in calls]) for calls in recorded.values()]
        rows.append(torch.cat([values / len(values) ** 0.5 for values in flat]))
    return torch.stack(rows).double().numpy()


def compute_gram(network, X, layers, normalize=True):
    features = compute_activations(network, X, layers)
    if normalize:
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return features @ features.T


#: Layers that are compared by default.
DEFAULT = {
    "MLP": ["2", "4"],
    "MLP with in-place ELU": ["2", "4"],
    "CNN with BatchNorm": ["1", "4", "5", "8"],
    "ResNet block": ["body.1", "body.3", "body.4", "head"],
    "vision transformer with a class token": [
        "layer.self_attn",
        "layer.linear1",
        "layer.linear2",
        "layer.norm1",
        "layer.norm2",
        "head",
    ],
    "Siamese net calling its trunk twice": ["trunk.2", "head"],
    "Siamese net with one joined call": ["trunk.2", "head"],
    "language model with tied embedding": ["mix", "head"],
    "LSTM classifier": ["cells", "head"],
    "GRU classifier, time first": ["cells", "head"],
    "positions before samples": ["head"],
    "samples and positions in one axis": ["head"],
    "weight_norm": ["2"],
    "old-style weight_norm": ["2"],
    "half of it frozen": ["2", "4"],
    "raw and unused parameters": ["body"],
    "a module registered twice": ["2"],
    "checkpointed, reentrant": ["body.0", "body.2", "head"],
    "not copyable": ["body"],
    "closure on itself": ["head"],
}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("name", "layers"), DEFAULT.items(), ids=DEFAULT)
def test_similarities_of_the_default_layers_equal_the_formula(name, layers, normalize):
    network, X = build(BY_NAME[name], n_samples=7)
    kernel = PerceptualKernel(network, normalize=normalize)
    expected = compute_gram(network, X, layers, normalize)
    np.testing.assert_allclose(kernel(X), expected, atol=1e-10)
    np.testing.assert_allclose(kernel(X[:3], X[3:]), expected[:3, 3:], atol=1e-10)
    np.testing.assert_allclose(kernel.diag(X), np.diag(expected), atol=1e-10)


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_any_network_has_a_kernel(case):
    network, X = build(case)
    gram = PerceptualKernel(network)(X)
    np.testing.assert_allclose(gram, gram.T)
    np.testing.assert_allclose(np.diag(gram), 1)
    assert np.linalg.eigvalsh(gram).min() > -1e-10


PATTERNS = {
    "one": ("2", ["2"]),
    "several": (["4", "0"], ["0", "4"]),
    "pattern": ("[02]", ["0", "2"]),
    "without parameters": ("1", ["1"]),
    "all": ("*", ["0", "1", "2", "3", "4"]),
}


@pytest.mark.parametrize(("layers", "names"), PATTERNS.values(), ids=PATTERNS)
def test_layers_are_selected_by_name_and_pattern(layers, names):
    network, X = build(NETWORKS[0])
    actual = PerceptualKernel(network, layers)(X)
    np.testing.assert_allclose(actual, compute_gram(network, X, names), atol=1e-10)


@pytest.mark.parametrize("layers", ["5", ["0", "missing"], 3, [], [0], "embed"])
def test_invalid_layers_raise_an_error(layers):
    network, X = build(BY_NAME["language model with tied embedding"])
    message = r"`layers` must be None, or .* match a layer .* 'mix', 'head'; got .*\. Use names"
    for call in (PerceptualKernel(network, layers), PerceptualKernel(network, layers).fit):
        with pytest.raises(ValueError, match=message):
            call(X)


def test_samples_are_evaluated_one_by_one_if_the_first_axis_is_another():
    network, X = build(BY_NAME["positions before samples"], n_samples=3)
    actual = PerceptualKernel(network, "*")(X)  # As many samples as positions.
    np.testing.assert_allclose(actual, compute_gram(network, X, ["body", "head"]), atol=1e-10)


@pytest.mark.parametrize("name", ["CNN with BatchNorm", "Siamese net with one joined call"])
def test_chunks_of_any_size_give_the_same_similarities(name):
    network, X = build(BY_NAME[name], n_samples=9)
    expected = PerceptualKernel(network)(X)
    for batch_size in (1, 2, 4, 9):
        actual = PerceptualKernel(network, batch_size=batch_size)(X)
        np.testing.assert_allclose(actual, expected, atol=1e-12)
    with sklearn.config_context(working_memory=0.05):
        np.testing.assert_allclose(PerceptualKernel(network)(X), expected, atol=1e-12)


def test_lower_precision_is_close_to_double_precision():
    network, X = build(BY_NAME["CNN with BatchNorm"], n_samples=9)
    expected = PerceptualKernel(network)(X)
    actual = PerceptualKernel(copy.deepcopy(network).float())(X.float())
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    half = PerceptualKernel(copy.deepcopy(network).half())(X.half())
    np.testing.assert_allclose(half, expected, atol=1e-2)


def test_a_frozen_network_gives_the_same_similarities():
    network, X = build(NETWORKS[0])
    expected = PerceptualKernel(network)(X)
    np.testing.assert_array_equal(PerceptualKernel(network.requires_grad_(False))(X), expected)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_perceptual_kernel_equals_the_network_kernel_if_all_weights_are_one():
    """In a last layer with one output lambda is 1, so both kernels are equal."""
    network, X = build(BY_NAME["MLP with a scalar output"])
    by_gradients = NetworkKernel(network, parameters="4.weight")(X)
    np.testing.assert_allclose(PerceptualKernel(network, "4")(X), by_gradients, atol=1e-10)


class Failing(nn.Module):
    """Network that fails on batches with large values."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, rows):
        hidden = self.body(rows)
        if (rows > 100).any():
            raise RuntimeError("too large")
        return self.head(hidden)


def test_the_network_is_not_modified_by_an_exception():
    network = Failing().train()
    X = torch.randn(6, 4)
    X[5] = 200
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(UnsupportedNetworkError, match="too large"):
        PerceptualKernel(network, batch_size=2)(X)
    assert all(part.training for part in network.modules())
    assert not any(part._forward_pre_hooks for part in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_kernel_machines_accept_the_perceptual_kernel():
    torch.manual_seed(0)
    X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    network, _ = build(NETWORKS[0], dtype=torch.float32)
    net = NeuralNetClassifier(network, criterion=nn.CrossEntropyLoss, verbose=0).initialize()
    kernel = PerceptualKernel(net)
    gram = kernel(X)
    assert SVC(kernel=kernel).fit(X, y).score(X, y) > 0.8
    expected = KernelRidge(kernel="precomputed").fit(gram, y).dual_coef_
    np.testing.assert_allclose(KernelRidge(kernel=kernel).fit(X, y).dual_coef_, expected, atol=1e-5)
    process = GaussianProcessRegressor(1.0 * PerceptualKernel(net) + WhiteKernel()).fit(X, y)
    assert np.isfinite(process.predict(X, return_std=True)).all()
    assert kernel(X[0], X[1]) == pytest.approx(gram[0, 1], abs=1e-6)
    assert not kernel.is_stationary()
    assert "PerceptualKernel" in repr(kernel)


def test_the_kept_gram_matrix_is_used_only_for_the_same_parameters():
    network, X = build(NETWORKS[0])
    kernel = PerceptualKernel(network)
    kernel(X, eval_gradient=True)
    np.testing.assert_array_equal(kernel(X), PerceptualKernel(network)(X))
    for params in ({"normalize": False}, {"layers": "4"}):
        kernel.set_params(**params)
        expected = PerceptualKernel(network).set_params(**kernel.get_params(deep=False))(X)
        np.testing.assert_array_equal(kernel(X), expected)


def test_a_clone_shares_the_network_and_a_pickle_restores_it():
    network, X = build(NETWORKS[0])
    kernel = PerceptualKernel(network, ["2", "4"]).fit(X)
    assert clone(kernel).estimator is network
    assert clone(SVC(kernel=kernel)).kernel.estimator is network
    loaded = pickle.loads(pickle.dumps(kernel))
    np.testing.assert_array_equal(loaded.transform(X), kernel.transform(X))


def test_the_default_network_is_trained_and_its_input_is_not_compared():
    X = np.random.default_rng(0).normal(size=(9, 3))
    kernel = PerceptualKernel(random_state=0).fit(X)
    network = kernel.estimator_
    expected = compute_gram(network, torch.as_tensor(X), ["layers.2", "layers.4"])
    np.testing.assert_allclose(kernel.transform(X), expected, atol=1e-10)


def test_a_warning_reports_samples_whose_activations_are_all_zero():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.zero_()
    X = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
    for normalize in (True, False):
        kernel = PerceptualKernel(network, normalize=normalize)
        with pytest.warns(
            ZeroGradientWarning, match="1 of 2 samples have a zero activation vector"
        ):
            gram = kernel(X)
        assert (gram[1] == 0).all()
        assert gram[0, 0] > 0


def test_activations_that_are_not_finite_raise_an_error():
    class Rooted(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, rows):
            return self.head(self.body(rows).log())

    with pytest.raises(
        UnsupportedNetworkError, match="activation vectors that are NaN or infinite"
    ):
        PerceptualKernel(Rooted())(torch.randn(6, 5))


def test_features_raise_an_error_because_they_have_no_layers():
    rows = np.eye(3)
    for call in (PerceptualKernel("features"), PerceptualKernel("features").fit):
        with pytest.raises(
            ValueError, match=r"features have no layers; got 'features'. Use NetworkKernel\('feat"
        ):
            call(rows)


@pytest.mark.parametrize("mix", [lambda rows: rows - rows.mean(dim=0), lambda rows: rows.squeeze()])
def test_networks_that_mix_samples_raise_an_error(mix):
    class Mixing(nn.Linear):
        def forward(self, rows):
            return mix(super().forward(rows))

    with pytest.raises(UnsupportedNetworkError, match="depend only on that sample"):
        PerceptualKernel(nn.Sequential(Mixing(4, 1)))(torch.randn(5, 4))


class Functional(nn.Module):
    """Network that calls no layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, rows):
        return rows @ self.weight.T


class Bag(nn.Module):
    """Network without a layer with parameters whose input is floating-point."""

    def __init__(self):
        super().__init__()
        self.bag, self.squash = nn.EmbeddingBag(9, 4), nn.Tanh()

    def forward(self, words):
        return self.squash(self.bag(words))


def test_networks_without_layers_to_compare_raise_an_error():
    words = torch.randint(0, 9, (5, 3))
    with pytest.raises(UnsupportedNetworkError, match=r"layers=None compares.*other `layers`"):
        PerceptualKernel(Bag())(words)
    assert PerceptualKernel(Bag(), "squash")(words).shape == (5, 5)
    with pytest.raises(UnsupportedNetworkError, match="no parameters"):
        PerceptualKernel(nn.Tanh())(torch.randn(3, 4))
    X = torch.randn(5, 4)
    expected = nn.functional.normalize(X) @ nn.functional.normalize(X).T
    np.testing.assert_allclose(PerceptualKernel(Functional())(X), expected, atol=1e-6)


def test_samples_of_different_lengths_raise_an_error():
    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return torch.arange(3 + index % 2)

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, words):
            return self.head(torch.tanh(self.body(self.embed(words))).mean(dim=1))

    network = Mean()
    with pytest.raises(ValueError, match=r"layer 'body' takes in 12 numbers, and others .* 16"):
        PerceptualKernel(network, batch_size=1)(Items())
    assert PerceptualKernel(network, "head", batch_size=1)(Items()).shape == (3, 3)


@pytest.mark.parametrize("params", [{"normalize": "yes"}, {"batch_size": 0}])
def test_invalid_parameters_raise_an_error(params):
    network, X = build(NETWORKS[0])
    with pytest.raises(ValueError, match=next(iter(params))):
        PerceptualKernel(network, **params)(X)


class SortingBody(nn.Module):
    """Network that sorts the samples of a batch, and restores their order at the end."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, rows):
        order = rows[:, 0].argsort()
        return self.head(torch.tanh(self.body(rows[order])))[order.argsort()]


@pytest.mark.parametrize("batch_size", [None, 7])
def test_activations_of_a_network_that_sorts_samples_are_those_of_each_sample(batch_size):
    torch.manual_seed(0)
    network, X = SortingBody().double(), torch.randn(30, 4, dtype=torch.float64)
    X[[0, 29], 0] = torch.tensor([-9.0, 9.0], dtype=torch.float64)  # They stay at their places.
    expected = PerceptualKernel(network, layers=["head"], batch_size=1)(X)
    gram = PerceptualKernel(network, layers=["head"], batch_size=batch_size)(X)
    np.testing.assert_allclose(gram, expected, atol=1e-10)
