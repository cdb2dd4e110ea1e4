"""PerceptualKernel against hooks and the formula written out."""

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


def naive_activities(network, X, layers):
    """What the layers take in at each row alone, divided by the root of how many numbers it is."""
    network.eval()
    rows = []
    for index in range(len(X)):
        taken = {name: [] for name in layers}
        handles = [
            network.get_submodule(name).register_forward_pre_hook(
                lambda layer, args, calls=taken[name]: calls.append(args[0].detach().clone())
            )
            for name in layers
        ]
        network(X[index : index + 1])
        for handle in handles:
            handle.remove()
        flat = [torch.cat([call.flatten() for call in calls]) for calls in taken.values()]
        rows.append(torch.cat([values / len(values) ** 0.5 for values in flat]))
    return torch.stack(rows).double().numpy()


def naive_gram(network, X, layers, normalize=True):
    features = naive_activities(network, X, layers)
    if normalize:
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return features @ features.T


#: The layers that are compared by default.
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
def test_values_and_default_layers(name, layers, normalize):
    network, X = build(BY_NAME[name], n_samples=7)
    kernel = PerceptualKernel(network, normalize=normalize)
    expected = naive_gram(network, X, layers, normalize)
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
def test_layers_by_name_and_pattern(layers, names):
    network, X = build(NETWORKS[0])
    found = PerceptualKernel(network, layers)(X)
    np.testing.assert_allclose(found, naive_gram(network, X, names), atol=1e-10)


@pytest.mark.parametrize("layers", ["5", ["0", "missing"], 3, [], [0], "embed"])
def test_bad_layers_are_explained(layers):
    network, X = build(BY_NAME["language model with tied embedding"])
    message = r"`layers` must be None, or .* match a layer .* 'mix', 'head'; got .*\. Use names"
    for call in (PerceptualKernel(network, layers), PerceptualKernel(network, layers).fit):
        with pytest.raises(ValueError, match=message):
            call(X)


def test_layers_of_other_axes_are_taken_one_by_one():
    network, X = build(BY_NAME["positions before samples"], n_samples=3)
    found = PerceptualKernel(network, "*")(X)  # As many samples as positions.
    np.testing.assert_allclose(found, naive_gram(network, X, ["body", "head"]), atol=1e-10)


@pytest.mark.parametrize("name", ["CNN with BatchNorm", "Siamese net with one joined call"])
def test_any_chunks_give_the_same(name):
    network, X = build(BY_NAME[name], n_samples=9)
    expected = PerceptualKernel(network)(X)
    for batch_size in (1, 2, 4, 9):
        found = PerceptualKernel(network, batch_size=batch_size)(X)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    with sklearn.config_context(working_memory=0.05):
        np.testing.assert_allclose(PerceptualKernel(network)(X), expected, atol=1e-12)


def test_single_precision_stays_near_double():
    network, X = build(BY_NAME["CNN with BatchNorm"], n_samples=9)
    expected = PerceptualKernel(network)(X)
    found = PerceptualKernel(copy.deepcopy(network).float())(X.float())
    np.testing.assert_allclose(found, expected, atol=1e-6)
    half = PerceptualKernel(copy.deepcopy(network).half())(X.half())
    np.testing.assert_allclose(half, expected, atol=1e-2)


def test_frozen_networks_are_compared_too():
    network, X = build(NETWORKS[0])
    expected = PerceptualKernel(network)(X)
    np.testing.assert_array_equal(PerceptualKernel(network.requires_grad_(False))(X), expected)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_it_is_the_similarity_with_a_constant_weight():
    """A last layer of one output has lambda = 1: both kernels are the same there."""
    network, X = build(BY_NAME["MLP with a scalar output"])
    by_gradients = NetworkKernel(network, parameters="4.weight")(X)
    np.testing.assert_allclose(PerceptualKernel(network, "4")(X), by_gradients, atol=1e-10)


class Failing(nn.Module):
    """Fails at some batches."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, rows):
        hidden = self.body(rows)
        if (rows > 100).any():
            raise RuntimeError("too large")
        return self.head(hidden)


def test_the_guest_is_left_as_it_was_after_an_exception():
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


def test_kernel_machines():
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


def test_the_kept_gram_knows_its_settings():
    network, X = build(NETWORKS[0])
    kernel = PerceptualKernel(network)
    kernel(X, eval_gradient=True)
    np.testing.assert_array_equal(kernel(X), PerceptualKernel(network)(X))
    for params in ({"normalize": False}, {"layers": "4"}):
        kernel.set_params(**params)
        expected = PerceptualKernel(network).set_params(**kernel.get_params(deep=False))(X)
        np.testing.assert_array_equal(kernel(X), expected)


def test_clone_and_pickle_keep_the_network():
    network, X = build(NETWORKS[0])
    kernel = PerceptualKernel(network, ["2", "4"]).fit(X)
    assert clone(kernel).estimator is network
    assert clone(SVC(kernel=kernel)).kernel.estimator is network
    loaded = pickle.loads(pickle.dumps(kernel))
    np.testing.assert_array_equal(loaded.transform(X), kernel.transform(X))


def test_the_default_network_is_trained_and_its_input_left_out():
    X = np.random.default_rng(0).normal(size=(9, 3))
    kernel = PerceptualKernel(random_state=0).fit(X)
    network = kernel.estimator_
    expected = naive_gram(network, torch.as_tensor(X), ["layers.2", "layers.4"])
    np.testing.assert_allclose(kernel.transform(X), expected, atol=1e-10)


def test_rows_without_activities_are_reported():
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


def test_activities_that_are_not_finite_are_refused():
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


def test_features_have_no_layers():
    rows = np.eye(3)
    for call in (PerceptualKernel("features"), PerceptualKernel("features").fit):
        with pytest.raises(
            ValueError, match=r"features have no layers; got 'features'. Use NetworkKernel\('feat"
        ):
            call(rows)


@pytest.mark.parametrize("mix", [lambda rows: rows - rows.mean(dim=0), lambda rows: rows.squeeze()])
def test_networks_that_mix_samples_are_refused(mix):
    class Mixing(nn.Linear):
        def forward(self, rows):
            return mix(super().forward(rows))

    with pytest.raises(UnsupportedNetworkError, match="depend only on that sample"):
        PerceptualKernel(nn.Sequential(Mixing(4, 1)))(torch.randn(5, 4))


class Functional(nn.Module):
    """Calls no layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, rows):
        return rows @ self.weight.T


class Bag(nn.Module):
    """Has no layer with parameters that takes in floating-point numbers."""

    def __init__(self):
        super().__init__()
        self.bag, self.squash = nn.EmbeddingBag(9, 4), nn.Tanh()

    def forward(self, words):
        return self.squash(self.bag(words))


def test_networks_without_such_layers_are_refused():
    words = torch.randint(0, 9, (5, 3))
    with pytest.raises(UnsupportedNetworkError, match=r"layers=None compares.*other `layers`"):
        PerceptualKernel(Bag())(words)
    assert PerceptualKernel(Bag(), "squash")(words).shape == (5, 5)
    with pytest.raises(UnsupportedNetworkError, match="no parameters"):
        PerceptualKernel(nn.Tanh())(torch.randn(3, 4))
    X = torch.randn(5, 4)
    expected = nn.functional.normalize(X) @ nn.functional.normalize(X).T
    np.testing.assert_allclose(PerceptualKernel(Functional())(X), expected, atol=1e-6)


def test_rows_of_different_lengths_are_explained():
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
def test_bad_parameters_are_refused(params):
    network, X = build(NETWORKS[0])
    with pytest.raises(ValueError, match=next(iter(params))):
        PerceptualKernel(network, **params)(X)
