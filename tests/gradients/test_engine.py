"""The engine against a double loop of autograd.grad."""

import copy

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from sknetsim import (
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    OutputTooLargeError,
    UnsupportedNetworkError,
    ZeroGradientWarning,
)
from sknetsim._gradients.engine import GradientEngine
from sknetsim._gradients.outputs import Outputs
from sknetsim._gradients.parameters import make_plan
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim.rules import DenseBlock, _registry, linear

from .. import naive
from ..cases import LAYERS, NETWORKS, build

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}
dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
cases = pytest.mark.parametrize("case", LAYERS + NETWORKS, ids=lambda case: case.name)


def expected_jacobians(case, network, X):
    """By the double loop, in float64 on the same weights and inputs."""
    network = case.reference(network.double())
    outputs = Outputs(case.output, resolve_network(network))

    def select(raw):
        return outputs.select(raw, outputs.targets(raw, None))

    X = X.double() if X.is_floating_point() else X
    return naive.jacobians(network, X, select)


@pytest.fixture
def without_rules(monkeypatch):
    monkeypatch.setattr(_registry, "_registry", {})


def check_quantities(case, dtype):
    network, X = build(case, dtype=dtype)
    Y, eps, tolerance = X[2:], torch.finfo(dtype).eps, TOLERANCES[dtype]
    kernel = NetworkKernel(network, case.output)
    found = {
        "gram": kernel(X),
        "gram_of_others": kernel(X, Y),
        "matrix": kernel.matrix(X, Y),
        "influence": kernel.influence(X, Y),
        "raw": NetworkKernel(network, case.output, normalize=False).matrix(X, Y),
        "features": GradientFeaturizer(network, case.output).fit(X).transform(X),
    }
    J = expected_jacobians(case, network, X)
    norms = np.linalg.norm(J, axis=(1, 2))
    K, KC = naive.kernel(J, J[2:]), naive.normalized_kernel(J, J[2:], eps)[0]
    scale = np.outer(norms, norms[2:])[..., None, None]
    np.testing.assert_allclose(found["raw"] / scale, K / scale, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found["gram"], naive.correlation(J, J, eps), rtol=0, atol=tolerance)
    np.testing.assert_allclose(found["gram_of_others"], found["gram"][:, 2:], atol=tolerance)
    np.testing.assert_allclose(found["matrix"], KC, rtol=0, atol=tolerance)
    F = found["features"].astype(float)
    np.testing.assert_allclose(F @ F.T, found["gram"], rtol=0, atol=tolerance)
    influence = naive.influence(J, J[2:])
    influence = influence[..., 0, 0] if J.shape[1] == 1 else influence
    largest = np.abs(influence).max()
    np.testing.assert_allclose(found["influence"], influence, rtol=0, atol=tolerance * largest)


@cases
@dtypes
def test_quantities_equal_the_double_loop(case, dtype):
    check_quantities(case, dtype)


@cases
def test_quantities_without_rules_equal_the_double_loop(case, without_rules):
    check_quantities(case, torch.float64)


layers = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)


@layers
def test_each_layer_is_served_by_its_rule(case):
    network, X = build(case)
    engine = GradientEngine(resolve_network(network))
    list(engine.jacobians(Samples(X)))
    assert make_plan(network, engine.selected, engine.refused).unserved == []


@cases
def test_exact_jacobians_are_in_the_order_of_the_parameters(case):
    network, X = build(case)
    engine = GradientEngine(resolve_network(network), case.output)
    found = torch.cat([jacobian.materialize() for _, jacobian in engine.jacobians(Samples(X))])
    np.testing.assert_allclose(found, expected_jacobians(case, network, X), atol=1e-10)


@pytest.mark.parametrize(
    ("name", "served_parts"),
    [
        ("positions before samples", {"head"}),
        ("samples and positions in one axis", {"head"}),
        ("Siamese net with one joined call", {"head"}),
        ("tied autoencoder", {"encoder"}),
        ("checkpointed, reentrant", set()),
    ],
)
def test_parameters_that_a_rule_gets_wrong_go_to_the_fallback(name, served_parts):
    case = next(case for case in NETWORKS if case.name == name)
    network, X = build(case)
    engine = GradientEngine(resolve_network(network))
    list(engine.jacobians(Samples(X)))
    served = set(make_plan(network, engine.selected, engine.refused).names.values())
    served -= set(make_plan(network, engine.selected, engine.refused).unserved)
    assert {parameter.partition(".")[0] for parameter in served} == served_parts


def test_a_wrong_rule_is_not_used(monkeypatch):
    def wrong(module, inputs, cotangents, names):
        return [
            DenseBlock(block.layout, 2 * block.materialize())
            for block in linear.linear(module, inputs, cotangents, names)
        ]

    monkeypatch.setitem(
        _registry._registry, nn.Linear, _registry.Entry(wrong, frozenset(["weight", "bias"]))
    )
    check_quantities(NETWORKS[0], torch.float64)


@pytest.mark.parametrize("position", [0, 3, 5])
def test_a_sample_axis_that_is_confused_for_one_sample_only_is_noticed(position):
    """The length of the sequence equals the number of samples, so that shapes say nothing."""
    case = next(case for case in NETWORKS if case.name == "positions before samples")
    network, _ = build(case)
    X = torch.randn(6, 6, 4, dtype=torch.float64)
    expected = naive.jacobians(network, X)
    engine = GradientEngine(resolve_network(network))
    found = torch.cat([jacobian.materialize() for _, jacobian in engine.jacobians(Samples(X))])
    np.testing.assert_allclose(found[position], expected[position], atol=1e-10)


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_batch_size_and_order_do_not_matter(case):
    network, X = build(case, n_samples=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    expected = NetworkKernel(network, case.output)(X)
    for batch_size in (1, 7, 9):
        kernel = NetworkKernel(network, case.output, batch_size=batch_size)
        np.testing.assert_allclose(kernel(X), expected, atol=1e-10)
    shuffled = NetworkKernel(network, case.output, batch_size=4)(X[order])
    np.testing.assert_allclose(shuffled, expected[order][:, order], atol=1e-10)


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_the_mode_handed_in_does_not_matter(case):
    network, X = build(case)
    expected = NetworkKernel(network.eval(), case.output)(X)
    np.testing.assert_allclose(NetworkKernel(network.train(), case.output)(X), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_networks_are_evaluated_in_float32(dtype):
    network, X = build(NETWORKS[0])
    network = network.to(dtype)
    expected = NetworkKernel(copy.deepcopy(network).float())(X.float())
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-6)


def test_gradients_too_small_for_float16_do_not_vanish():
    network, X = build(NETWORKS[0])
    network[-1].weight.data *= 1e-6
    wanted = NetworkKernel(copy.deepcopy(network.half()).double(), parameters="0.*")(X)
    np.testing.assert_allclose(NetworkKernel(network, parameters="0.*")(X), wanted, atol=1e-4)


@pytest.mark.parametrize(
    "context", [torch.inference_mode, torch.no_grad], ids=["inference", "no_grad"]
)
def test_the_callers_context_does_not_matter(context):
    network, X = build(NETWORKS[0])
    expected = NetworkKernel(network)(X)
    with context():
        np.testing.assert_array_equal(NetworkKernel(network)(X.clone()), expected)


def test_a_network_made_under_inference_mode():
    with torch.inference_mode():
        network, X = build(NETWORKS[0])
    assert next(network.parameters()).is_inference()
    plain, _ = build(NETWORKS[0])
    np.testing.assert_allclose(NetworkKernel(network)(X), NetworkKernel(plain)(X), atol=1e-12)


def test_the_callers_autocast_does_not_matter():
    network, X = build(NETWORKS[0], dtype=torch.float32)
    expected = NetworkKernel(network)(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(NetworkKernel(network)(X), expected)


def test_parameters_without_influence_count_as_zero():
    case = next(case for case in NETWORKS if case.name == "raw and unused parameters")
    network, X = build(case)
    features = GradientFeaturizer(network).fit_transform(X)
    unused = sum(parameter.numel() for parameter in network.unused.parameters())
    assert features.shape[1] == 3 * sum(parameter.numel() for parameter in network.parameters())
    assert not features.reshape(6, 3, -1)[:, :, -unused:].any()


@pytest.mark.parametrize("megabytes", [0.01, 0.1, 10])
def test_a_small_memory_budget_changes_nothing_but_the_chunks(megabytes):
    network, X = build(next(case for case in NETWORKS if case.name == "CNN with BatchNorm"))
    expected = NetworkKernel(network, output="sum")(X)
    with sklearn.config_context(working_memory=megabytes):
        found = NetworkKernel(network, output="sum")(X)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_too_many_outputs_are_refused_with_their_cost():
    network = nn.Linear(4, 3000)
    with (
        pytest.raises(
            OutputTooLargeError, match=r"3000 outputs that take about \d+ MiB.*'predicted'"
        ),
        sklearn.config_context(working_memory=100),
    ):
        NetworkKernel(network)(torch.randn(3, 4))


MIXING = {
    "mean over samples": lambda hidden: hidden - hidden.mean(0),
    "running sum": lambda hidden: hidden.cumsum(0),
    "reversed running sum": lambda hidden: hidden.flip(0).cumsum(0).flip(0),
    "randomness": lambda hidden: torch.nn.functional.dropout(hidden, training=True),
}


@pytest.mark.parametrize("mix", MIXING.values(), ids=MIXING.keys())
def test_networks_that_mix_samples_are_refused(mix):
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, rows):
            return mix(self.layer(rows))

    with pytest.raises(
        UnsupportedNetworkError, match="different outputs for a sample on its own than in a batch"
    ):
        NetworkKernel(Mixing())(torch.randn(5, 4))


def test_a_squeeze_without_an_axis_is_refused():
    class Squeezing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, rows):
            return self.layer(rows).squeeze()

    with pytest.raises(UnsupportedNetworkError, match=r"no squeeze\(\)"):
        NetworkKernel(Squeezing())(torch.randn(5, 4))


def test_a_network_that_returns_nothing_is_refused():
    class Silent(nn.Linear):
        def forward(self, rows):
            super().forward(rows)

    with pytest.raises(UnsupportedNetworkError, match=r"must return one tensor .* got a NoneType"):
        NetworkKernel(Silent(4, 3))(torch.randn(5, 4))


def test_a_network_with_infinite_outputs_is_refused():
    network = nn.Linear(4, 3)
    network.weight.data[0, 0] = torch.inf
    with pytest.raises(UnsupportedNetworkError, match="NaN or infinity"):
        NetworkKernel(network)(torch.ones(5, 4))


def test_zero_gradients_are_counted_and_similar_to_nothing():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.zero_()
    X = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [-3.0, 0.0]])
    with pytest.warns(ZeroGradientWarning, match="2 of 3 samples"):
        gram = NetworkKernel(network)(X)
    np.testing.assert_allclose(gram, [[1, 0, 0], [0, 0, 0], [0, 0, 0]], atol=1e-6)


def test_a_different_network_between_calls_of_one_kernel():
    """Weights are read anew at each call."""
    network, X = build(NETWORKS[0])
    kernel = NetworkKernel(network)
    before = kernel(X)
    network.load_state_dict(build(NETWORKS[0], seed=1)[0].state_dict())
    np.testing.assert_allclose(kernel(X), NetworkKernel(copy.deepcopy(network))(X))
    assert not np.allclose(kernel(X), before)


class Sorting(nn.Module):
    """Sorts the samples of a batch, and puts them back."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, rows):
        order = rows[:, 0].argsort()
        return self.head(torch.tanh(self.body(rows[order]))[order.argsort()])


class Gated(nn.Module):
    """Uses a weight outside its layer for some samples."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, rows):
        gate = (rows[:, :1] > 0) * nn.functional.linear(rows, self.body.weight)[:, :2]
        return self.head(torch.tanh(self.body(rows))) + gate


@pytest.mark.parametrize("kind", [Sorting, Gated])
def test_batches_that_are_treated_differently_are_noticed(kind):
    """The first batch is sorted and gated shut; the others are neither."""
    network = kind().double()
    X = torch.randn(18, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X[:6, 0] = torch.linspace(-3, -2, 6)
    with pytest.raises(
        UnsupportedNetworkError, match=r"must treat all batches in the same way.*batch_size=1"
    ):
        NetworkKernel(network, batch_size=6)(X)
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    for batch_size in (1, 18):
        found = NetworkKernel(network, batch_size=batch_size)(X)
        np.testing.assert_allclose(found, expected, atol=1e-10)


class Adaptive(nn.Module):
    """As many steps through one layer as a batch's first number says."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, rows):
        hidden = rows
        for _ in range(1 + int(rows[0, 0] > 0)):
            hidden = torch.tanh(self.body(hidden))
        return self.head(hidden)


def test_layers_called_more_often_in_some_batches():
    network = Adaptive().double()
    X = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X[:3, 0], X[3:6, 0], X[6:, 0] = 1, -1, 1
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network, batch_size=3)(X), expected, atol=1e-10)


class Rooted(nn.Module):
    """A root whose gradient at zero is not a number."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 4, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, rows):
        return self.head(self.body(rows).abs().sqrt())


@pytest.mark.parametrize("estimator", [NetworkKernel(), NetworkDensity(), NetworkNeighbors()])
def test_gradients_that_are_not_finite_are_refused(estimator):
    X = torch.ones(6, 5)
    X[4] = 0
    estimator.set_params(estimator=Rooted())
    with pytest.raises(UnsupportedNetworkError, match="NaN or infinite at 1 of 6 samples"):
        fitted = estimator.fit(X)
        (fitted.kneighbors if hasattr(fitted, "kneighbors") else fitted)(X)


class Multiplied(nn.Module):
    """Outputs of any magnitude."""

    def __init__(self, factor):
        super().__init__()
        self.layer, self.factor = nn.Linear(5, 3), factor

    def forward(self, rows):
        return self.layer(rows) * self.factor


@pytest.mark.parametrize("factor", [1e-23, 1e-15, 1e15, 1e23])
def test_magnitudes_whose_squares_leave_float32(factor):
    network = Multiplied(factor)
    X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    expected = NetworkKernel(network.layer)(X)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-5)
    found = NetworkKernel(network).influence(X)
    np.testing.assert_allclose(found, NetworkKernel(network.layer).influence(X), atol=1e-4)


class AlteringItsInput(nn.Module):
    """A convolution that saves a padded copy of what is altered afterwards."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(15, 2)

    def forward(self, rows):
        rows = rows.clone()
        hidden = self.body(rows)
        rows.mul_(0)
        return self.head(torch.tanh(hidden).flatten(1))


def test_an_input_that_is_altered_later():
    network = AlteringItsInput().double()
    X = torch.randn(6, 2, 5, dtype=torch.float64)
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-10)


class Branching(nn.Module):
    """Looks at its values, which vmap cannot."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.body = nn.Linear(5, 3)

    def forward(self, rows):
        hidden = self.body(rows) * self.scale
        return hidden * 2 if rows.abs().max().item() > 100 else hidden


def test_what_vmap_cannot_do_is_done_by_a_loop():
    network = Branching().double()
    X = torch.randn(6, 5, dtype=torch.float64)
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-10)


def test_running_out_of_memory_is_no_reason_for_a_loop(monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("sknetsim._gradients.fallback.vmap", full)
    with pytest.raises(torch.OutOfMemoryError):
        NetworkKernel(Branching())(torch.randn(3, 5))


def test_autocast_inside_the_network():
    class Autocast(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, rows):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = torch.tanh(self.body(rows))
            return self.head(hidden.float())

    X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.diag(NetworkKernel(Autocast())(X)), 1, atol=1e-2)


def test_a_scripted_network():
    network, X = build(NETWORKS[0])
    scripted = torch.jit.script(network)
    np.testing.assert_allclose(NetworkKernel(scripted)(X), NetworkKernel(network)(X), atol=1e-10)


def test_outputs_in_another_precision_than_the_network():
    network, X = build(NETWORKS[0], dtype=torch.float32)
    expected = NetworkKernel(network)(X)
    found = NetworkKernel(network, output=lambda raw: raw.double())(X)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_mixing_network_is_refused_at_batch_size_one():
    class Centred(nn.Linear):
        def forward(self, rows):
            return super().forward(rows - rows.mean(dim=0))

    with pytest.raises(UnsupportedNetworkError, match="different outputs for a sample on its own"):
        NetworkKernel(Centred(5, 2), batch_size=1)(torch.randn(4, 5))


@pytest.mark.parametrize("output", [lambda raw: raw.detach(), lambda raw: 0 * raw])
def test_outputs_without_a_gradient_count_as_zero(output):
    network, X = build(NETWORKS[0])
    with pytest.warns(ZeroGradientWarning, match="6 of 6"):
        assert not NetworkKernel(network, output=output)(X).any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@cases
def test_a_gpu_gives_what_the_cpu_gives(case):
    network, X = build(case)
    expected = NetworkKernel(network, case.output)(X)
    np.testing.assert_allclose(NetworkKernel(network.cuda(), case.output)(X), expected, atol=1e-8)
