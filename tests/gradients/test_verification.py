"""Networks and gradients that are verified, and the schedule of the checks."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import NetworkKernel, UnsupportedNetworkError
from sknetsim._gradients.engine import GradientEngine
from sknetsim._gradients.parameters import make_plan
from sknetsim._gradients.verification import Schedule
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim.rules import DenseBlock, _registry, linear

from .. import naive
from ..cases import NETWORKS, build
from .quantities import check_quantities


def list_checked_chunks(step, samples):
    """Return the numbers of the chunks that are checked in a pass over samples."""
    schedule, numbers = Schedule(), []
    for number, start in enumerate(range(0, samples, step), start=1):
        size = min(step, samples - start)
        if schedule.is_due(size, start + size == samples):
            numbers.append(number)
            schedule.record(size, set())
    return numbers


def test_large_chunks_are_checked_at_powers_of_eight_and_at_the_end():
    assert list_checked_chunks(100, 7050) == [1, 8, 64, 71]


def test_small_chunks_are_checked_more_often():
    assert list_checked_chunks(10, 200) == [1, 2, 4, 8, 16, 20]


def test_single_samples_are_all_checked():
    assert list_checked_chunks(1, 5) == [1, 2, 3, 4, 5]


def test_a_pass_of_one_chunk_is_checked():
    assert list_checked_chunks(100, 20) == [1]


@pytest.mark.parametrize("count", [1, 31, 32])
def test_all_samples_of_a_small_chunk_are_checked(count):
    assert len(range(count)[Schedule().select_part(count)]) == count


@pytest.mark.parametrize("count", [33, 47, 48, 100, 1023, 1024])
def test_some_samples_of_a_large_chunk_are_checked_from_start_to_end(count):
    indices = range(count)[Schedule().select_part(count)]
    assert 16 <= len(indices) <= 32
    assert indices[-1] >= count * 15 // 16


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
def test_the_fallback_computes_parameters_whose_rule_is_wrong(name, served_parts):
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
        order = rows[:, 0].argsort()
        return self.head(torch.tanh(self.body(rows[order]))[order.argsort()])


class Gated(nn.Module):
    """Network that uses a weight outside its layer for some samples."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, rows):
        gate = (rows[:, :1] > 0) * nn.functional.linear(rows, self.body.weight)[:, :2]
        return self.head(torch.tanh(self.body(rows))) + gate


@pytest.mark.parametrize("kind", [Sorting, Gated])
def test_a_network_that_treats_batches_differently_raises_an_error(kind):
    """In the first batch the samples are in order and all gates are closed; not in the others."""
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
        gram = NetworkKernel(network, batch_size=batch_size)(X)
        np.testing.assert_allclose(gram, expected, atol=1e-10)
