"""Networks and gradients that are verified in each chunk."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sknetsim import GradientFeaturizer, NetworkKernel, UnsupportedNetworkError
from sknetsim._gradients import engine as engine_module
from sknetsim._gradients.engine import GradientEngine
from sknetsim._gradients.verification import are_checked, are_verified, select_part, select_rows
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim.rules import DenseBlock, _registry

from .. import naive
from ..cases import NETWORKS, build
from .quantities import check_quantities


@pytest.mark.parametrize("count", [1, 31, 32])
def test_all_samples_of_a_small_first_chunk_are_verified(count):
    assert len(range(count)[select_part(count)]) == count


@pytest.mark.parametrize("count", [33, 47, 48, 100, 1023, 1024])
def test_some_samples_of_a_large_first_chunk_are_verified_from_start_to_end(count):
    indices = range(count)[select_part(count)]
    assert 16 <= len(indices) <= 32
    assert indices[-1] >= count * 15 // 16


@pytest.mark.parametrize("count", [2, 15, 16, 32, 100, 2560])
def test_some_but_not_all_samples_of_each_chunk_are_checked(count):
    rows = select_rows(count, seed=0)
    assert 1 <= len(rows) <= max(1, 3 + count // 32)
    assert len(set(rows)) == len(rows) < count
    assert set(rows) <= set(range(count))


@pytest.mark.parametrize("count", [128, 2560])
def test_the_first_and_the_last_sample_of_a_chunk_are_checked(count):
    assert {0, count - 1} <= set(select_rows(count, seed=3))


@pytest.mark.parametrize(("count", "numbers"), [(10, [2, 4]), (63, [2, 4]), (64, [1, 2, 3, 4])])
def test_samples_are_evaluated_again_in_every_large_and_every_second_small_chunk(count, numbers):
    assert [number for number in range(1, 5) if are_checked(count, number)] == numbers


def test_gradients_of_chunks_that_are_alike_are_verified_more_and_more_rarely():
    assert [number for number in range(1, 300) if are_verified(number)] == [4, 16, 64, 256]


def test_other_samples_are_checked_in_the_next_chunk():
    assert select_rows(10, seed=0) != select_rows(10, seed=1)


@pytest.mark.parametrize(
    ("name", "served_parts"),
    [
        ("checkpointed, reentrant", set()),
    ],
)
def test_the_fallback_computes_parameters_whose_rule_is_wrong(name, served_parts):
    case = next(case for case in NETWORKS if case.name == name)
    network, X = build(case)
    engine = GradientEngine(resolve_network(network))
    list(engine.jacobians(Samples(X)))
    served = engine.selected - set(engine.unserved)
    assert {parameter.partition(".")[0] for parameter in served} == served_parts


def test_a_wrong_rule_is_not_used(monkeypatch):
    entry = _registry.find_function_rule(functional.linear)

    def wrong(arguments, cotangents, names):
        blocks = entry.rule(arguments, cotangents, names)
        return [DenseBlock(block.layout, 2 * block.materialize()) for block in blocks]

    monkeypatch.setitem(_registry._functions, functional.linear, replace(entry, rule=wrong))
    check_quantities(NETWORKS[0], torch.float64)


@pytest.mark.parametrize("position", [0, 3, 5])
def test_a_confused_sample_axis_is_detected_even_for_one_sample(position):
    """The sequence is as long as the batch, so shapes do not show the sample axis."""
    case = next(case for case in NETWORKS if case.name == "positions before samples")
    network, _ = build(case)
    X = torch.randn(6, 6, 4, dtype=torch.float64)
    expected = naive.jacobians(network, X)
    engine = GradientEngine(resolve_network(network))
    J = torch.cat([jacobian.materialize() for _, jacobian in engine.jacobians(Samples(X))])
    np.testing.assert_allclose(J[position], expected[position], atol=1e-10)


MIXING = {
    "mean over samples": lambda hidden: hidden - hidden.mean(0),
    "running sum": lambda hidden: hidden.cumsum(0),
    "reversed running sum": lambda hidden: hidden.flip(0).cumsum(0).flip(0),
    "randomness": lambda hidden: torch.nn.functional.dropout(hidden, training=True),
}


@pytest.mark.parametrize("mix", MIXING.values(), ids=MIXING.keys())
def test_networks_that_mix_samples_raise_an_error(mix):
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


def test_networks_that_mix_samples_raise_an_error_at_batch_size_one():
    class Centred(nn.Linear):
        def forward(self, rows):
            return super().forward(rows - rows.mean(dim=0))

    with pytest.raises(UnsupportedNetworkError, match="different outputs for a sample on its own"):
        NetworkKernel(Centred(5, 2), batch_size=1)(torch.randn(4, 5))


def test_a_squeeze_without_an_axis_raises_an_error():
    class Squeezing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, rows):
            return self.layer(rows).squeeze()

    with pytest.raises(UnsupportedNetworkError, match=r"no squeeze\(\)"):
        NetworkKernel(Squeezing())(torch.randn(5, 4))


def test_infinite_outputs_raise_an_error():
    network = nn.Linear(4, 3)
    network.weight.data[0, 0] = torch.inf
    with pytest.raises(UnsupportedNetworkError, match="NaN or infinity"):
        NetworkKernel(network)(torch.ones(5, 4))


class Sorting(nn.Module):
    """Network that sorts the samples of a batch, and restores their order at the end."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, rows):
        order = self.sort(rows)
        return self.restore(self.head(torch.tanh(self.body(self.arrange(rows, order)))), order)

    def arrange(self, rows, order):
        return rows[order]

    def sort(self, rows):
        return rows[:, 0].argsort()

    def restore(self, outputs, order):
        return outputs[order.argsort()]


class Selecting(Sorting):
    """Network that restores the order by index_select."""

    def restore(self, outputs, order):
        return outputs.index_select(0, order.argsort())


class Assigning(Sorting):
    """Network that restores the order by an assignment."""

    def restore(self, outputs, order):
        restored = torch.zeros_like(outputs)
        restored[order] = outputs
        return restored


class Scattering(Sorting):
    """Network that restores the order by scatter."""

    def restore(self, outputs, order):
        return torch.zeros_like(outputs).scatter(0, order[:, None].expand_as(outputs), outputs)


class Packing(Sorting):
    """Network that sorts and restores only the samples of long sequences."""

    def forward(self, rows):
        is_long = rows[:, 0] > 0
        parts = torch.cat([rows[is_long], rows[~is_long]])
        outputs = self.head(torch.tanh(self.body(parts)))
        restored = torch.zeros_like(outputs)
        restored[is_long], restored[~is_long] = outputs.split([is_long.sum(), (~is_long).sum()])
        return restored


class Rolling(Sorting):
    """Network that rolls the samples by a number that depends on the batch."""

    def forward(self, rows):
        shift = int((rows[:, 0] > 0).sum())
        return self.head(torch.tanh(self.body(rows.roll(shift, 0)))).roll(-shift, 0)


class Permuting(Sorting):
    """Network that restores the order by a product with a permutation matrix."""

    def restore(self, outputs, order):
        return torch.eye(len(order), dtype=outputs.dtype)[order.argsort()] @ outputs


class Summing(Sorting):
    """Network that restores the order by a sum over all samples."""

    def restore(self, outputs, order):
        mask = torch.eye(len(order), dtype=outputs.dtype)[order.argsort()]
        return (mask[:, :, None] * outputs).sum(1)


class Solving(Sorting):
    """Network that sorts samples by systems of equations, which are not recognised."""

    def arrange(self, rows, order):
        return torch.linalg.solve(self.permutation(rows, order).T, rows).contiguous() + 0

    def restore(self, outputs, order):
        return torch.linalg.solve(self.permutation(outputs, order), outputs).contiguous() + 0

    def permutation(self, rows, order):
        return (order[:, None] == torch.arange(len(order))).to(rows.dtype)


class Gated(Sorting):
    """Network that uses a weight outside its layer for some samples."""

    def forward(self, rows):
        gate = (rows[:, :1] > 0) * nn.functional.linear(rows, self.body.weight)[:, :2]
        return self.head(torch.tanh(self.body(rows))) + gate


class Routing(Sorting):
    """Network that calls a function of a weight if some sample of the batch needs it."""

    def forward(self, rows):
        outputs = self.head(torch.tanh(self.body(rows)))
        if (rows[:, 0] > 0).any():
            outputs = outputs + (rows[:, :1] > 0) * (rows @ self.body.weight.T)[:, :2]
        return outputs


TREATING_BATCHES_DIFFERENTLY = [
    Sorting, Selecting, Assigning, Scattering, Packing, Rolling, Permuting, Summing, Gated, Routing
]  # fmt: skip


def make_uneven_samples(count, positive):
    """Return samples in order, some with a positive first value and out of order."""
    X = torch.randn(count, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X[:, 0] = torch.linspace(-3, -2, count, dtype=torch.float64)
    X[positive, 0] = torch.linspace(2, 1, len(positive), dtype=torch.float64)
    return X


@pytest.mark.parametrize("batch_size", [1, 5, 20, 60])
@pytest.mark.parametrize("kind", TREATING_BATCHES_DIFFERENTLY)
def test_a_network_that_treats_batches_differently_has_correct_gradients(kind, batch_size):
    """In the first chunk, the samples are in order and all gates are closed; not in the others."""
    torch.manual_seed(0)
    network = kind().double()
    X = make_uneven_samples(60, positive=[23, 27, 28, 41, 44, 58])
    J = naive.jacobians(network, X)
    gram = NetworkKernel(network, batch_size=batch_size)(X)
    np.testing.assert_allclose(
        gram, naive.correlation(J, J, torch.finfo(torch.float64).eps), atol=1e-10
    )


@pytest.mark.parametrize("is_normalized", [False, True], ids=["plain", "weight_norm"])
def test_chunks_with_as_many_samples_as_positions_are_not_all_verified(is_normalized, monkeypatch):
    """The networks have means over 4 positions, and products with a weight of 4 columns."""
    layer = nn.Linear(3, 4)
    last = nn.Linear(4, 2)
    if is_normalized:
        last = nn.utils.parametrizations.weight_norm(last)
    network = nn.Sequential(layer, nn.Tanh(), Mean(), last)
    counts, find = Counter(), engine_module.find_wrong_parameters

    def count(tape, jacobian):
        counts[batch_size] += 1
        return find(tape, jacobian)

    monkeypatch.setattr(engine_module, "find_wrong_parameters", count)
    for batch_size in (4, 5):
        engine = GradientEngine(resolve_network(network), batch_size=batch_size)
        list(engine.jacobians(Samples(torch.randn(7 * batch_size, 4, 3))))
    assert counts[4] == counts[5]


class Mean(nn.Module):
    """Mean over the positions."""

    def forward(self, hidden):
        return hidden.mean(1)


def test_a_network_that_is_wrong_in_a_later_chunk_raises_an_error():
    X = make_uneven_samples(600, positive=[500])
    with pytest.raises(
        UnsupportedNetworkError, match=r"must treat all batches in the same way.*batch_size=1"
    ):
        NetworkKernel(Solving().double(), batch_size=150)(X)


@pytest.mark.parametrize("kind", [Sorting, Packing])
def test_one_sample_out_of_order_in_a_large_chunk_is_detected(kind):
    network = kind().double()
    X = make_uneven_samples(3000, positive=[2700])
    features = GradientFeaturizer(network, batch_size=1000).fit(X).transform(X)
    alone = GradientFeaturizer(network, batch_size=1).fit(X[:1]).transform(X[2690:2710])
    np.testing.assert_allclose(features[2690:2710], alone, atol=1e-10)
