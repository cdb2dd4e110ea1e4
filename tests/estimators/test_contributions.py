"""Contributions compared with the similarity, and with sums written as loops."""

import copy

import numpy as np
import pytest
import sklearn
import torch
from torch import nn
from torch.nn import functional

from sknetsim import Contributions, NetworkKernel, ZeroGradientWarning

from .. import naive
from ..cases import LAYERS, NETWORKS, build

BY_NAME = {case.name: case for case in NETWORKS}
cases = pytest.mark.parametrize("case", LAYERS + NETWORKS, ids=lambda case: case.name)


def make_pairs(case, dtype=torch.float64):
    """Return a network and five pairs of samples."""
    network, X = build(case, n_samples=10, dtype=dtype)
    return network, X[:5], X[5:]


def assert_sums(contributions, expected, atol):
    for parts in (contributions.by_layer(), contributions.by_parameter()):
        np.testing.assert_allclose(sum(parts.values()), expected, atol=atol)
    sums = sum(contributions.by_activity(name).sum(axis=1) for name in contributions.by_parameter())
    np.testing.assert_allclose(sums, expected, atol=atol)
    np.testing.assert_allclose(contributions.similarity, expected, atol=atol)


@pytest.mark.parametrize("normalize", [True, False])
@cases
def test_contributions_sum_to_the_similarity(case, normalize):
    network, X, Y = make_pairs(case)
    kernel = NetworkKernel(network, case.output, normalize=normalize)
    expected = np.diag(kernel(X, Y))
    assert_sums(kernel.contributions(X, Y), expected, 1e-8 * max(1, abs(expected).max()))


@pytest.mark.parametrize("output", ["all", "predicted", "sum", -1, [2, 0], "loss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contributions_sum_to_the_similarity_for_any_output_and_dtype(output, dtype, classifier):
    net, X = classifier(dtype)
    kernel = NetworkKernel(net, output)
    atol = 1e-10 if dtype is torch.float64 else 1e-5
    expected = kernel(X[:6], X[6:])[range(6), range(6)]
    assert_sums(kernel.contributions(X[:6], X[6:]), expected, atol)


@pytest.fixture
def classifier():
    from skorch import NeuralNetClassifier

    def make(dtype):
        network, X = build(NETWORKS[0], n_samples=12, dtype=dtype)
        net = NeuralNetClassifier(network, criterion=nn.CrossEntropyLoss, verbose=0)
        return net.initialize(), X.numpy()

    return make


@cases
def test_positions_sum_to_the_layer_or_an_error_says_that_there_are_none(case):
    """The positions of all layers that have some are requested."""
    network, X, Y = make_pairs(case)
    kernel = NetworkKernel(network, case.output)
    try:
        contributions = kernel.contributions(X, Y, positions="*")
    except ValueError as error:
        assert "no layer of this network" in str(error)
        return
    names, parts = dict(network.named_modules()), contributions.by_parameter()
    for layer, positions in contributions.positions.items():
        expected = parts[next(name for name in parts if contributions.layers[name] == layer)]
        # A weight or a bias of these is used in another way, too.
        alone = case.name not in ("twin layers with one weight", "tied autoencoder")
        alone &= (case.name, layer) != ("subclass of Linear", "0")
        if not isinstance(names[layer], nn.modules.conv._ConvTransposeNd) and alone:
            expected = contributions.by_layer()[layer]
        np.testing.assert_allclose(positions.sum(axis=(1, 2)), expected, atol=1e-8)


def test_chunks_of_any_size_give_the_same_contributions():
    network, X, Y = make_pairs(BY_NAME["CNN with BatchNorm"])
    expected = NetworkKernel(network).contributions(X, Y, positions=["0", "4"])
    for batch_size in (1, 2, 3):
        kernel = NetworkKernel(network, batch_size=batch_size)
        contributions = kernel.contributions(X, Y, positions=["0", "4"])
        for layer in ("0", "4"):
            np.testing.assert_allclose(
                contributions.by_position(layer), expected.by_position(layer), atol=1e-10
            )
        for name, part in contributions.activities.items():
            np.testing.assert_allclose(part, expected.by_activity(name), atol=1e-10)


@pytest.mark.parametrize("case", [NETWORKS[0], NETWORKS[1]], ids=lambda case: case.name)
def test_activations_of_a_perceptron_contribute_as_in_the_equation(case):
    """lambda_i a_i a_i' is computed from the inputs of each layer and gradients in its outputs."""
    network, X, Y = make_pairs(case)
    layers = {name: part for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    (a, e), (b, f) = (record_layers(network, layers, rows) for rows in (X, Y))
    contributions = NetworkKernel(network).contributions(X, Y)
    for name in layers:
        weights = np.einsum("noj,noj->n", e[name], f[name]) / e[name].shape[1]
        expected = weights[:, None] * a[name] * b[name]
        np.testing.assert_allclose(
            contributions.by_activity(f"{name}.weight"), expected, atol=1e-10
        )
        np.testing.assert_allclose(
            contributions.by_activity(f"{name}.bias")[:, 0], weights, atol=1e-10
        )


def record_layers(network, layers, X):
    """Return the activations (n, i) and whitened gradients (n, o, j) of each layer."""
    J = naive.jacobians(network, X)
    roots = [naive.inverse_root(j @ j.T, 1e-16)[0] for j in J]
    inputs, gradients = {}, {name: [] for name in layers}
    layer_inputs, layer_outputs = {}, {}

    def hook(name):
        def record(layer, args, output):
            layer_inputs[name], layer_outputs[name] = args[0].detach().clone(), output
            return output.clone()  # Activations in place come next.

        return record

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    outputs = network(X)
    for output in outputs.sum(dim=0):
        grads = torch.autograd.grad(output, list(layer_outputs.values()), retain_graph=True)
        for name, gradient in zip(layer_outputs, grads, strict=True):
            gradients[name].append(gradient)
    for handle in handles:
        handle.remove()
    inputs = {name: value.numpy() for name, value in layer_inputs.items()}
    whitened = {
        name: np.einsum("nop,npj->noj", roots, torch.stack(parts, dim=1).numpy())
        for name, parts in gradients.items()
    }
    return inputs, whitened


@pytest.mark.parametrize("bias", [True, False])
def test_positions_of_a_convolution_contribute_as_in_the_equation(bias):
    """The expected value is a double sum over windows."""
    network = nn.Sequential(
        nn.Conv2d(2, 4, (2, 3), padding=(0, 1), groups=2, bias=bias),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(60, 1),
    ).double()
    X, Y = torch.randn(2, 3, 2, 4, 5, dtype=torch.float64)
    (a, e), (b, f) = (make_windows_and_gradients(network, rows) for rows in (X, Y))
    expected = np.zeros((3, 15, 15))
    for t in range(15):
        for s in range(15):
            for group in range(2):
                ours, channels = slice(2 * group, 2 * group + 2), slice(6 * group, 6 * group + 6)
                activities = (a[:, channels, t] * b[:, channels, s]).sum(axis=1) + bias
                expected[:, t, s] += (e[:, ours, t] * f[:, ours, s]).sum(axis=1) * activities
    kernel = NetworkKernel(network, normalize=False)
    contributions = kernel.contributions(X, Y, positions="0").by_position("0")
    np.testing.assert_allclose(contributions, expected, atol=1e-10)


def make_windows_and_gradients(network, X):
    """Return the windows (n, c k, t) of a first convolution, and its output gradients (n, j, t)."""
    images = network[0](X).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(network[1:](images).sum(), images)
    windows = functional.unfold(X, (2, 3), padding=(0, 1))
    return windows.numpy(), gradients.flatten(2).numpy()


def test_activations_of_a_convolution_are_channels_and_offsets():
    network = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(9, 2)).double()
    X, Y = torch.randn(2, 4, 2, 5, dtype=torch.float64)
    contributions = NetworkKernel(network, normalize=False).contributions(X, Y)
    J, J2 = (naive.jacobians(network, rows)[:, :, :18] for rows in (X, Y))
    expected = (J * J2).reshape(4, 2, 3, 6).sum(axis=(1, 2)) / 2
    np.testing.assert_allclose(contributions.by_activity("0.weight"), expected, atol=1e-10)


def test_activations_of_an_embedding_are_its_rows():
    """Only words that occur in both texts contribute."""
    network = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    first, second = torch.tensor([[1, 2], [3, 3]]), torch.tensor([[2, 4], [5, 6]])
    contributions = NetworkKernel(network).contributions(first, second).by_activity("0.weight")
    assert contributions.shape == (2, 7)
    assert np.flatnonzero(contributions[0]).tolist() == [2]
    assert not contributions[1].any()


def test_activations_of_a_transposed_convolution_are_its_input_channels():
    """A channel that is zero contributes nothing."""
    network = nn.Sequential(nn.ConvTranspose1d(3, 2, 2), nn.Flatten(), nn.Linear(10, 2)).double()
    X, Y = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    X[:, 1] = 0
    contributions = NetworkKernel(network).contributions(X, Y).by_activity("0.weight")
    assert contributions.shape == (5, 3)
    assert (contributions[:, 1] == 0).all()
    assert (contributions[:, [0, 2]] != 0).all()


LAYERS_WITH_POSITIONS = {
    "depthwise convolution": (nn.Conv1d(4, 4, 3, groups=4), lambda p, h: p.layer(h.mT)),
    "grouped convolution": (nn.Conv1d(4, 6, 3, groups=2), lambda p, h: p.layer(h.mT)),
    "layer with its weight in two parts": (
        nn.Linear(4, 6),
        lambda p, h: functional.linear(h, p.layer.weight[:3]) * (h @ p.layer.weight[3:].mT),
    ),
    "queries, keys and values of one weight": (
        nn.MultiheadAttention(4, 2, batch_first=True),
        lambda p, h: p.layer(h, 2 * h, h)[0],
    ),
}


@pytest.mark.parametrize("kind", LAYERS_WITH_POSITIONS)
def test_layers_keep_their_positions(kind):
    layer, compute = LAYERS_WITH_POSITIONS[kind]
    network = HiddenLayer(layer, compute).double()
    X, Y = torch.randn(2, 3, 5, 3, dtype=torch.float64)
    network(X)
    kernel = NetworkKernel(network, normalize=False)
    contributions = kernel.contributions(X, Y, positions="layer")
    positions = contributions.by_position("layer")
    # One weight, and its bias if it is used.
    names = [n for n in contributions.by_parameter() if contributions.layers[n] == "layer"]
    expected = sum(contributions.by_parameter()[name] for name in names)
    assert positions.shape[1] > 1
    np.testing.assert_allclose(positions.sum(axis=(1, 2)), expected, atol=1e-10)


class HiddenLayer(nn.Module):
    """Network with a function of itself and of hidden values (n, t, 4)."""

    def __init__(self, layer, compute):
        super().__init__()
        self.body, self.layer, self.head = nn.Linear(3, 4), layer, nn.LazyLinear(2)
        self.compute = compute

    def forward(self, X):
        return self.head(torch.tanh(self.compute(self, self.body(X).tanh())).flatten(1))


def test_a_layer_that_is_called_twice_has_the_positions_of_both_calls():
    network, X, Y = make_pairs(BY_NAME["Siamese net calling its trunk twice"])
    contributions = NetworkKernel(network).contributions(X, Y, positions="trunk.*")
    assert contributions.by_position("trunk.0").shape == (5, 2, 2)
    trunk = contributions.by_layer()["trunk.0"]
    np.testing.assert_allclose(
        contributions.by_position("trunk.0").sum(axis=(1, 2)), trunk, atol=1e-10
    )


def test_a_shared_weight_counts_for_its_first_layer():
    network, X, Y = make_pairs(BY_NAME["twin layers with one weight"])
    contributions = NetworkKernel(network).contributions(X, Y, positions="first")
    assert list(contributions.by_parameter()) == ["first.weight", "first.bias", "second.bias"]
    assert list(contributions.by_layer()) == ["first", "second"]
    weight = contributions.by_parameter()["first.weight"]
    np.testing.assert_allclose(
        contributions.by_position("first").sum(axis=(1, 2)), weight, atol=1e-10
    )


def test_only_selected_parameters_contribute():
    network, X, Y = make_pairs(BY_NAME["CNN with BatchNorm"])
    kernel = NetworkKernel(network, parameters=["0.weight", "8.*"])
    contributions = kernel.contributions(X, Y, positions="0")
    assert list(contributions.by_parameter()) == ["0.weight", "8.weight", "8.bias"]
    assert_sums(contributions, np.diag(kernel(X, Y)), 1e-10)
    parts = contributions.by_position("0").sum(axis=(1, 2))
    np.testing.assert_allclose(parts, contributions.by_layer()["0"], atol=1e-10)


def make_network_with_zero_gradient():
    """Return a network and two samples, the second of which has a zero gradient."""
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, bias=False)).double()
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.zero_()
    return network, torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_zero_gradient_contributes_nothing(normalize):
    network, X = make_network_with_zero_gradient()
    with pytest.warns(ZeroGradientWarning, match="1 of 2 samples have a zero gradient"):
        contributions = NetworkKernel(network, normalize=normalize).contributions(
            X, X, positions="*"
        )
    values = [
        contributions.similarity,
        *contributions.activities.values(),
        *contributions.positions.values(),
    ]
    assert all(np.isfinite(value).all() and not value[1].any() for value in values)


class Branches(nn.Module):
    """The third input goes through neurons that are never active."""

    def __init__(self):
        super().__init__()
        self.used, self.inactive = nn.Linear(2, 4), nn.Linear(1, 4)
        self.head = nn.Linear(8, 1)
        self.inactive.bias.data.fill_(-1000.0)

    def forward(self, rows):
        hidden = torch.cat([self.used(rows[:, :2]), self.inactive(rows[:, 2:])], dim=1)
        return self.head(torch.relu(hidden))


def test_equal_gradients_mean_equal_useful_activations():
    """In a network without shared weights, only activations that no output uses can differ."""
    network = Branches().double()
    X = torch.tensor([[0.5, -1.0, 3.0]], dtype=torch.float64)
    Y = torch.tensor([[0.5, -1.0, -7.0]], dtype=torch.float64)
    np.testing.assert_array_equal(naive.jacobians(network, X), naive.jacobians(network, Y))
    kernel = NetworkKernel(network, normalize=False)
    between, within = kernel.contributions(X, Y), kernel.contributions(X, X)
    assert between.similarity == within.similarity
    for name, parts in between.activities.items():
        np.testing.assert_array_equal(parts, within.by_activity(name))
    assert not between.by_layer()["inactive"]
    assert between.by_activity("used.weight").all()
    for column in range(2):
        Y[0, column] += 0.1  # An activity that is used.
        assert not np.allclose(naive.jacobians(network, X), naive.jacobians(network, Y))


def test_shared_weights_make_the_similarity_invariant_to_shifts():
    """With a convolution and a mean over positions, a shifted image has the same gradient."""
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular"),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 1),
    ).double()
    X = torch.randn(1, 1, 6, 5, dtype=torch.float64)
    Y = X.roll((2, 1), dims=(2, 3))
    contributions = NetworkKernel(network).contributions(X, Y, positions="0")
    assert contributions.similarity[0] == pytest.approx(1)
    assert not torch.allclose(X, Y)
    positions = NetworkKernel(network).contributions(X, X, positions="0").by_position("0")
    moved = torch.arange(30).view(6, 5).roll((2, 1), dims=(0, 1)).flatten().numpy()
    np.testing.assert_allclose(
        contributions.by_position("0")[:, :, :], positions[:, :, moved], atol=1e-10
    )


def test_each_feature_is_an_activation():
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [0.3, 0.0]])
    contributions = NetworkKernel("features").contributions(rows[:2], rows[1:])
    np.testing.assert_allclose(contributions.by_activity("features"), rows[:2] * rows[1:])
    assert list(contributions.by_layer()) == ["features"]
    with pytest.raises(ValueError, match="no layer of this network"):
        NetworkKernel("features").contributions(rows, rows, positions="features")


def test_the_default_network_has_contributions():
    X = np.random.default_rng(0).normal(size=(8, 3))
    kernel = NetworkKernel(random_state=0).fit(X)
    assert_sums(kernel.contributions(X[:4], X[4:]), np.diag(kernel(X[:4], X[4:])), 1e-10)


def test_the_table_has_one_row_per_pair_and_parameter():
    network, X, Y = make_pairs(NETWORKS[0])
    contributions = NetworkKernel(network).contributions(X, Y)
    frame = contributions.to_frame()
    assert list(frame.columns) == ["pair", "layer", "parameter", "contribution"]
    assert len(frame) == 5 * 6
    sums = frame.groupby("pair")["contribution"].sum()
    np.testing.assert_allclose(sums, contributions.similarity)
    by_layer = frame[frame.pair == 2].groupby("layer")["contribution"].sum()
    for layer, part in contributions.by_layer().items():
        assert by_layer[layer] == pytest.approx(part[2])


def test_the_network_is_not_modified():
    network, X, Y = make_pairs(BY_NAME["CNN with BatchNorm"])
    before = copy.deepcopy(network.train().state_dict())
    NetworkKernel(network).contributions(X, Y, positions="*")
    assert all(part.training and not part._forward_hooks for part in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


BAD = {
    "rows": ({}, lambda X: (X, X[:3]), {}, "`Y` must have as many samples as `X`, 5, .*; got 3"),
    "metric": (
        {"metric": "rotation"},
        lambda X: (X, X),
        {},
        "`metric` must be 'trace' .*; got 'rotation'",
    ),
    "layer": (
        {},
        lambda X: (X, X),
        {"positions": "missing"},
        "positions.*; got 'missing'.*'0', '4'",
    ),
    "one of two": (
        {},
        lambda X: (X, X),
        {"positions": ["0", "x"]},
        r"positions.*; got \['0', 'x'\]",
    ),
    "number": ({}, lambda X: (X, X), {"positions": 3}, "positions.*; got 3"),
    "without factors": ({}, lambda X: (X, X), {"positions": "1"}, "positions.*; got '1'.*'0', '4'"),
}


@pytest.mark.parametrize(("params", "rows", "arguments", "message"), BAD.values(), ids=BAD)
def test_invalid_input_raises_an_error(params, rows, arguments, message):
    network, X, _ = make_pairs(BY_NAME["CNN with BatchNorm"])
    with pytest.raises(ValueError, match=message):
        NetworkKernel(network, **params).contributions(*rows(X), **arguments)


def test_unknown_names_raise_an_error():
    network, X, Y = make_pairs(BY_NAME["CNN with BatchNorm"])
    contributions = NetworkKernel(network).contributions(X, Y, positions="0")
    assert isinstance(contributions, Contributions)
    with pytest.raises(
        ValueError, match=r"`parameter` .*; got '0'. Use one of '0.weight', '0.bias'"
    ):
        contributions.by_activity("0")
    with pytest.raises(ValueError, match=r"`layer` must be .* \('0'\); got '4'. Pass"):
        contributions.by_position("4")
    with pytest.raises(ValueError, match="none were"):
        NetworkKernel(network).contributions(X, Y).by_position("0")


def test_positions_of_sequences_of_different_lengths_raise_an_error():
    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.arange(3 + index)

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, words):
            return self.head(torch.tanh(self.embed(words)).mean(dim=1))

    kernel = NetworkKernel(Mean(), batch_size=1)
    with pytest.raises(ValueError, match=r"'embed', which has .* one pair at a time"):
        kernel.contributions(Items(), Items(), positions="embed")
    assert_sums(kernel.contributions(Items(), Items()), np.ones(2), 1e-6)


def test_contributions_beyond_the_memory_of_the_machine_raise_an_error(monkeypatch):
    network, X, Y = make_pairs(BY_NAME["CNN with BatchNorm"])
    with sklearn.config_context(working_memory=0.1):
        contributions = NetworkKernel(network).contributions(X, Y)
    assert_sums(contributions, np.diag(NetworkKernel(network)(X, Y)), 1e-10)
    monkeypatch.setattr("os.sysconf", lambda name: 50)
    with pytest.raises(MemoryError, match=r"Contributions of shape .* fewer pairs"):
        NetworkKernel(network).contributions(X, Y)


def test_a_parametrization_belongs_to_its_layer():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    contributions = NetworkKernel(nn.Sequential(layer)).contributions(
        torch.ones(1, 3), torch.ones(1, 3)
    )
    assert list(contributions.by_layer()) == ["0"]
