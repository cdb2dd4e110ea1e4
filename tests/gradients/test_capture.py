"""Cotangents at the recorded calls, and their cost."""

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from sknetsim import NetworkKernel, OutputTooLargeError
from sknetsim._gradients.capture import check_affordable, compute_cotangents
from sknetsim._gradients.recording import Resolver, record_calls
from sknetsim.losses import PairSimilarityLoss
from sknetsim.rules import _registry

from .. import naive


def make_perceptron(activation=None, outputs=3):
    activation = nn.Tanh() if activation is None else activation
    return nn.Sequential(nn.Linear(4, 5), activation, nn.Linear(5, outputs)).double()


def make_samples(samples=6):
    return torch.randn(samples, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def record(network, X):
    """Return the outputs, and the uses of the parameters."""
    parameters = dict(network.named_parameters())
    with record_calls(network, set(parameters), X) as tape:
        outputs = network(X)
    ids = map(id, parameters.values())
    return outputs, Resolver().find_uses(tape, {}, ids, network)[0]


class Square(torch.autograd.Function):
    """Square whose derivative reads a number, which vmap does not support."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values**2

    @staticmethod
    def backward(ctx, gradient):
        (values,) = ctx.saved_tensors
        assert gradient.abs().max().item() >= 0
        return 2 * values * gradient


class Squared(nn.Module):
    def forward(self, values):
        return Square.apply(values)


DERIVATIVES = {
    "vmap": (nn.Tanh(), lambda z: 1 - torch.tanh(z) ** 2),
    "one backward pass per output": (Squared(), lambda z: 2 * z),
}


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(("activation", "derivative"), DERIVATIVES.values(), ids=DERIVATIVES)
def test_cotangents_are_derivatives_in_the_output_of_each_call(activation, derivative, outputs):
    network, X = make_perceptron(activation, outputs), make_samples()
    first, last = compute_cotangents(*record(network, X))
    # f_o = sum_h V[o,h] a(z_h) + b_o, so c[o,n,h] = V[o,h] a'(z[n,h]) at the first layer.
    z, V = network[0](X), network[2].weight
    torch.testing.assert_close(first, (V[:, None] * derivative(z)).detach())
    expected = torch.eye(outputs, dtype=torch.float64)[:, None].expand(outputs, len(X), outputs)
    torch.testing.assert_close(last, expected.contiguous())


@pytest.mark.parametrize("activation", [nn.Tanh(), Squared()], ids=["vmap", "loop"])
def test_cotangents_have_a_graph_on_request(activation):
    network, X = make_perceptron(activation), make_samples()
    first, _ = compute_cotangents(*record(network, X), graph=True)
    assert first.requires_grad
    first, _ = compute_cotangents(*record(network, X))
    assert not first.requires_grad


def test_calls_without_influence_have_no_cotangent():
    network, X = make_perceptron(), make_samples()
    outputs, uses = record(network, X)
    assert compute_cotangents(outputs.detach(), uses) == [None, None]
    assert compute_cotangents(torch.ones_like(outputs, requires_grad=True), uses) == [None, None]


def test_exhausted_memory_does_not_start_one_backward_pass_per_output(monkeypatch):
    network, X = make_perceptron(), make_samples()
    outputs, uses = record(network, X)

    def exhaust(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("sknetsim._gradients.capture._grad", exhaust)
    with pytest.raises(torch.OutOfMemoryError):
        compute_cotangents(outputs, uses)


def test_calls_are_recorded_in_order_with_their_inputs():
    network, X = make_perceptron(), make_samples()
    _, uses = record(network, X)
    assert [use.call.sources["weight"].name for use in uses] == ["0.weight", "2.weight"]
    assert uses[0].call.arguments["input"] is X
    assert [use.call.output_shapes for use in uses] == [[(6, 5)], [(6, 3)]]
    assert [use.explain_unsupported() for use in uses] == [None, None]
    X.mul_(2)
    first, second = [use.explain_unsupported() for use in uses]
    assert first is not None and second is None


def test_hooks_are_removed_after_an_exception(monkeypatch):
    network, X = make_perceptron(), make_samples()
    rule = _registry.Entry(lambda *args: [], frozenset(["weight", "bias"]))
    monkeypatch.setitem(_registry._layers, nn.Linear, rule)
    with pytest.raises(RuntimeError), record_calls(network, {"0.weight"}, X):
        assert network[0]._forward_hooks and network[0]._forward_pre_hooks
        network(X[:, :3])
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network)


class AlteringItsInput(nn.Module):
    """Convolution that saves a padded copy of its input, which is changed afterwards."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(15, 2)

    def forward(self, rows):
        rows = rows.clone()
        hidden = self.body(rows)
        rows.mul_(0)
        return self.head(torch.tanh(hidden).flatten(1))


def test_an_input_may_be_changed_after_the_call():
    network = AlteringItsInput().double()
    X = torch.randn(6, 2, 5, dtype=torch.float64)
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-10)


class Adaptive(nn.Module):
    """Network that calls one layer once or twice, depending on the first number of a batch."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, rows):
        hidden = rows
        for _ in range(1 + int(rows[0, 0] > 0)):
            hidden = torch.tanh(self.body(hidden))
        return self.head(hidden)


def test_a_layer_may_be_called_more_often_in_some_batches():
    network = Adaptive().double()
    X = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X[:3, 0], X[3:6, 0], X[6:, 0] = 1, -1, 1
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network, batch_size=3)(X), expected, atol=1e-10)


def test_too_many_outputs_raise_an_error_with_their_cost():
    network = nn.Linear(4, 3000)
    with (
        pytest.raises(
            OutputTooLargeError, match=r"3000 outputs that take about \d+ MiB.*'predicted'"
        ),
        sklearn.config_context(working_memory=100),
    ):
        NetworkKernel(network)(torch.randn(3, 4))


@pytest.mark.parametrize("output", ["all", list(range(5000))], ids=["all", "indices"])
def test_outputs_that_take_too_long_are_refused_before_a_backward_pass(output, monkeypatch):
    monkeypatch.setattr("sknetsim._gradients.capture._grad", None)
    message = r"at most 10 s on a CPU; got .{5,30}, 5000 outputs that take about \d\d s\. Set"
    with pytest.raises(OutputTooLargeError, match=message):
        NetworkKernel(nn.Linear(4, 5000), output)(torch.randn(3, 4))


def test_losses_refuse_the_same_outputs():
    with pytest.raises(OutputTooLargeError, match="at most 10 s on a CPU; got 'all'"):
        PairSimilarityLoss()(nn.Linear(4, 5000), torch.randn(3, 4), torch.randn(3, 4))


def make_uses(layer, size, requires_grad=True):
    """Return the use of a layer's parameters on two samples, without computing the output."""
    layer = layer.to("meta")
    inputs = torch.zeros(2, *size, requires_grad=requires_grad, device="meta")
    return record(layer, inputs)[1]


def test_the_time_grows_with_the_network():
    outputs = torch.zeros(2, 500)
    # The cotangents of the inputs and the gradients take 500 outputs x 64 x 64 x 9 weights
    # x 96 x 96 positions = 1.7e11 multiplications each.
    layer = nn.Conv2d(64, 64, 3, padding=1)
    with sklearn.config_context(working_memory=10_000):
        check_affordable("all", outputs, make_uses(layer, (64, 32, 32)), ())
        with pytest.raises(OutputTooLargeError, match="about 12 s"):
            check_affordable("all", outputs, make_uses(layer, (64, 96, 96)), ())


def test_a_layer_on_samples_takes_no_backward_pass():
    layer = nn.Conv2d(64, 64, 3, padding=1)
    uses = make_uses(layer, (64, 96, 96), requires_grad=False)
    with sklearn.config_context(working_memory=10_000):
        check_affordable("all", torch.zeros(2, 500), uses, ())


def test_the_time_of_a_thousand_outputs_is_affordable():
    check_affordable("all", torch.zeros(1, 1000), [], ())


def test_a_single_output_is_never_refused():
    layer = nn.Conv2d(64, 64, 3, padding=1)
    with sklearn.config_context(working_memory=1e-3):
        check_affordable("predicted", torch.zeros(2, 1), make_uses(layer, (64, 128, 128)), ())


class Attention(nn.Module):
    """Attention of each sample to itself, whose derivative vmap computes by a loop."""

    def forward(self, hidden):
        return nn.functional.scaled_dot_product_attention(hidden, hidden, hidden)[:, 0, 0]


@pytest.mark.filterwarnings("error")
def test_functions_that_vmap_computes_by_a_loop_cause_no_warning():
    network = nn.Sequential(nn.Linear(4, 4), Attention(), nn.Linear(4, 3))
    first, _ = compute_cotangents(*record(network, torch.randn(5, 2, 6, 4)))
    assert first.shape == (3, 5, 2, 6, 4)
