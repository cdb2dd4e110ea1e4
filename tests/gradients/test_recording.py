"""Networks whose calls are easily mistaken: their gradients against a double loop.

Index legend: n samples; t positions; i features.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sknetsim import NetworkKernel
from sknetsim._gradients.engine import GradientEngine
from sknetsim._gradients.recording import recorder
from sknetsim._kernels.parameter_maps import NormalizedMap
from sknetsim._kernels.sum_blocks import SumBlock
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

from .. import naive


class Network(nn.Module):
    """Linear layers around a function of this module and hidden values (n, 4, 6)."""

    def __init__(self, function, **parts):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.LazyLinear(2)
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self, torch.tanh(self.first(x))).flatten(1))


def make_parameter(*shape):
    return nn.Parameter(torch.randn(shape))


def build(function, make_parts, n_samples=5):
    """Return a network in float64 and some samples (n, 4, 3)."""
    torch.manual_seed(0)
    network, X = Network(function, **make_parts()).double(), torch.randn(n_samples, 4, 3).double()
    network(X)
    return network.eval(), X


def check_jacobians(network, X, batch_size=None):
    """Compare the Jacobians of all chunks with a double loop of autograd.grad."""
    engine = GradientEngine(resolve_network(network), batch_size=batch_size)
    chunks = engine.jacobians(Samples(X), factored=True)
    J = torch.cat([jacobian.materialize() for _, jacobian in chunks])
    np.testing.assert_allclose(J.detach(), naive.jacobians(network, X), rtol=0, atol=1e-10)


def choose_expert(p, h):
    """Return products with the expert of each sample, looked up in a table."""
    return torch.bmm(h, p.experts[(h[:, 0, 0] > 0).long()])


def swap_positions(p, h):
    return p.layer(h[:, torch.tensor([1, 0])])


def swap_last_axis(p, h):
    return p.layer(h.mT[..., torch.tensor([1, 0])].mT)


def sort_samples(p, h):
    """Return the layer's output for sorted samples, on the second axis, in their own order."""
    order = h[:, 0, 0].argsort()
    return p.layer(h.transpose(0, 1)[:, order, None])[:, order.argsort(), 0].transpose(0, 1)


INDEXING = {
    choose_expert: lambda: {"experts": make_parameter(3, 6, 6)},
    swap_positions: lambda: {"layer": nn.Linear(6, 6)},
    swap_last_axis: lambda: {"layer": nn.Linear(6, 6)},
    sort_samples: lambda: {"layer": nn.Linear(6, 6)},
}


@pytest.mark.parametrize("function", INDEXING, ids=lambda f: f.__name__)
def test_an_index_of_n_elements_need_not_permute_the_samples(function):
    # The last chunk has as many samples as the index has elements.
    network, X = build(function, INDEXING[function], n_samples=14)
    check_jacobians(network, X, batch_size=3)
    # The signs that choose an expert are 0, 0 in the first chunk and 1, 0 in the third.
    signs = (network.first(X)[:, 0, 0] > 0).tolist()
    X = X[torch.tensor(signs).argsort(stable=True)]
    check_jacobians(network, X[[0, 1, 2, 3, -1, 0]], batch_size=2)


def call_on_few_rows(p, h):
    """Return sums of the outputs for positive rows only, of which a sample may have none."""
    rows, samples = h.flatten(0, 1), torch.arange(len(h)).repeat_interleave(h.shape[1])
    is_used = rows[:, 0] > 0.6
    return h.new_zeros(len(h), 6).index_add(0, samples[is_used], p.layer(rows[is_used]))


def test_a_layer_may_be_called_on_no_rows():
    network, X = build(call_on_few_rows, lambda: {"layer": nn.Linear(6, 6)})
    counts = (network.first(X).tanh()[:, :, 0] > 0.6).sum(dim=1)
    assert counts.min() == 0
    # Samples with rows come first.
    check_jacobians(network, X[counts.argsort(descending=True)], batch_size=1)


def multiply_complex(p, h):
    return torch.view_as_real(h.to(torch.complex128) @ torch.view_as_complex(p.weight))


def test_weights_may_be_views_of_parameters_as_complex_numbers():
    network, X = build(multiply_complex, lambda: {"weight": make_parameter(6, 6, 2)})
    check_jacobians(network, X)
    J = naive.jacobians(network, X)
    K = NetworkKernel(network, normalize=False).matrix(X)
    np.testing.assert_allclose(K, naive.kernel(J, J), rtol=0, atol=1e-8)


def cast_weights(p, h):
    """Return a linear layer's output for weights that methods of tensors return as they are."""
    weight = p.layer.weight.to(h.dtype).contiguous().requires_grad_(True)
    return functional.linear(h, weight, p.layer.bias.to(h)) + p.layer(h)


def test_a_parameter_that_is_returned_unchanged_is_no_derived_tensor():
    network, X = build(cast_weights, lambda: {"layer": nn.Linear(6, 6)})
    check_jacobians(network, X)
    (jacobian,) = [j for _, j in GradientEngine(resolve_network(network)).jacobians(Samples(X))]
    assert not any(isinstance(block, SumBlock) for block in jacobian.blocks.values())


@pytest.mark.parametrize("size", [1, 4])
def test_a_network_may_refuse_batches_of_another_size(size):
    class Sized(nn.Sequential):
        def forward(self, x):
            if len(x) not in (1, size):
                raise ValueError("The batch has a wrong size.")
            return super().forward(x)

    network, X = Sized(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), torch.randn(size, 3)
    check_jacobians(network, X.double(), batch_size=size)


def attend(p, h):
    return p.layer(h, h, h)[0]


def test_functions_of_torch_that_are_replaced_later_are_called(monkeypatch):
    network, X = build(attend, lambda: {"layer": nn.MultiheadAttention(6, 2, batch_first=True)})
    check_jacobians(network, X)
    linear = functional.linear
    monkeypatch.setattr(functional, "linear", lambda *arguments: 2 * linear(*arguments))
    check_jacobians(network, X)


class Scale(torch.autograd.Function):
    """Product of hidden values and a weight, which the recorder cannot see."""

    @staticmethod
    def forward(context, hidden, weight):
        context.save_for_backward(hidden, weight)
        return hidden * weight

    @staticmethod
    def backward(context, cotangents):
        hidden, weight = context.saved_tensors
        return cotangents * weight, (cotangents * hidden).sum((0, 1))


def fail_in_vmap(p, h):
    """Return the hidden values times a weight; raise a KeyError in vmap."""
    return {False: Scale}[torch._C._functorch.is_functorch_wrapped_tensor(h)].apply(h, p.weight)


def test_a_network_may_raise_any_error_in_vmap():
    check_jacobians(*build(fail_in_vmap, lambda: {"weight": make_parameter(6)}))


def call_by_names(p, h):
    """Return states of a cell whose parameters are passed by name, and clamped values."""
    weights = {"w_ih": p.w_ih, "w_hh": p.w_hh, "b_ih": p.bias, "b_hh": p.bias}
    states = torch.gru_cell(h[:, 0], hx=h[:, 1, :3], **weights)
    return torch.cat([states, torch.clamp_(input=h[:, 2] + 0, max=p.limit)], dim=1)


def test_arguments_may_be_passed_by_name():
    def make_parts():
        shapes = {"w_ih": (9, 6), "w_hh": (9, 3), "bias": (9,), "limit": (6,)}
        return {name: make_parameter(*shape) for name, shape in shapes.items()}

    check_jacobians(*build(call_by_names, make_parts))


def test_only_calls_of_the_network_are_recorded(monkeypatch):
    names, run = set(), recorder._Recorder._run

    def collect(self, function, *arguments):
        names.add(function.__name__)
        return run(self, function, *arguments)

    monkeypatch.setattr(recorder._Recorder, "_run", collect)
    check_jacobians(*build(lambda p, h: p.layer(h), lambda: {"layer": nn.Linear(6, 6)}))
    assert names == {"linear"}


def use_twice(p, h):
    """Return states of a cell with two halves of a weight, each of them used twice."""
    first, second = p.weight.chunk(2)
    for _ in range(2):
        h = torch.cat([functional.linear(h, first), functional.linear(h, second)], dim=2).tanh()
    return h


def use_scaled_twice(p, h):
    """Return states of a cell with a scaled weight that is used twice."""
    weight = 2 * p.weight
    return functional.linear(functional.linear(h, weight).tanh(), weight)


@pytest.mark.parametrize(("function", "count"), [(use_twice, 2), (use_scaled_twice, 1)])
def test_a_tensor_that_is_used_twice_is_one_part_of_its_block(function, count):
    network, X = build(function, lambda: {"weight": make_parameter(6, 6)})
    check_jacobians(network, X)
    (jacobian,) = [j for _, j in GradientEngine(resolve_network(network)).jacobians(Samples(X))]
    block = jacobian.blocks["weight",]
    assert len(block.parts) == count
    assert block.is_orthogonal == (function is use_twice)


def use_rounded_weight(p, h):
    return functional.linear(h, p.layer.weight.float().to(h), p.layer.bias)


def test_weights_that_are_rounded_are_verified_with_the_rounded_precision():
    network, X = build(use_rounded_weight, lambda: {"layer": nn.Linear(6, 6)})
    engine = GradientEngine(resolve_network(network))
    J = torch.cat([jacobian.materialize() for _, jacobian in engine.jacobians(Samples(X))])
    np.testing.assert_allclose(J.detach(), naive.jacobians(network, X), rtol=0, atol=1e-6)
    assert not engine.refused


@pytest.mark.parametrize("dim", [0, 1, None])
def test_normalized_weights_are_mapped_without_autograd(dim):
    network = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2), dim=dim)
    ((_, jacobian),) = GradientEngine(resolve_network(network)).jacobians(
        Samples(torch.randn(4, 3)), factored=True
    )
    (block,) = (b for b in jacobian.blocks.values() if isinstance(b, SumBlock))
    assert isinstance(block.parts[0].maps[0], NormalizedMap)


def tie(p, h):
    """Return rows of a table times its transpose, by a linear layer."""
    numbers = (3 * h[..., 0]).long() % 9
    return functional.linear(functional.embedding(numbers, p.weight).tanh(), p.weight)


def multiply_twice(p, h):
    """Return products with a weight and with its transpose."""
    return functional.linear((h @ p.weight).tanh(), p.weight)


@pytest.mark.parametrize(("function", "shape"), [(tie, (9, 6)), (multiply_twice, (6, 6))])
def test_sums_over_uses_of_different_forms_need_no_gradients(function, shape, monkeypatch):
    network, X = build(function, lambda: {"weight": make_parameter(*shape)})
    check_jacobians(network, X)
    (jacobian,) = [j for _, j in GradientEngine(resolve_network(network)).jacobians(Samples(X))]
    weights = torch.ones(*jacobian.outputs.shape, 1, dtype=torch.float64)
    expected = jacobian.blocks["weight",].dense().weighted_sum(weights)[0]
    monkeypatch.setattr(SumBlock, "materialize", None)
    torch.testing.assert_close(jacobian.weighted_sum(weights)["weight"], expected)
