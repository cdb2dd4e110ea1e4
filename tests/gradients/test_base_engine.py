"""Isolated evaluation, chunk by chunk: precision, the caller's settings, and memory."""

import copy
import weakref

import numpy as np
import pytest
import sklearn
import torch
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import NetworkKernel, UnsupportedNetworkError
from sknetsim._gradients.engine import GradientEngine
from sknetsim._gradients.recording import served_blocks
from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

from ..cases import NETWORKS, build


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_the_mode_of_the_network_does_not_matter(case):
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
    expected = NetworkKernel(copy.deepcopy(network.half()).double(), parameters="0.*")(X)
    np.testing.assert_allclose(NetworkKernel(network, parameters="0.*")(X), expected, atol=1e-4)


@pytest.mark.parametrize(
    "context", [torch.inference_mode, torch.no_grad], ids=["inference", "no_grad"]
)
def test_the_context_of_the_caller_does_not_matter(context):
    network, X = build(NETWORKS[0])
    expected = NetworkKernel(network)(X)
    with context():
        np.testing.assert_array_equal(NetworkKernel(network)(X.clone()), expected)


def test_a_network_may_be_made_in_inference_mode():
    with torch.inference_mode():
        network, X = build(NETWORKS[0])
    assert next(network.parameters()).is_inference()
    plain, _ = build(NETWORKS[0])
    np.testing.assert_allclose(NetworkKernel(network)(X), NetworkKernel(plain)(X), atol=1e-12)


def test_autocast_of_the_caller_does_not_matter():
    network, X = build(NETWORKS[0], dtype=torch.float32)
    expected = NetworkKernel(network)(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(NetworkKernel(network)(X), expected)


@pytest.mark.parametrize("megabytes", [0.01, 0.1, 10])
def test_a_small_memory_budget_does_not_change_the_kernel(megabytes):
    network, X = build(next(case for case in NETWORKS if case.name == "CNN with BatchNorm"))
    expected = NetworkKernel(network, output="sum")(X)
    with sklearn.config_context(working_memory=megabytes):
        gram = NetworkKernel(network, output="sum")(X)
    np.testing.assert_allclose(gram, expected, atol=1e-12)


def test_weights_may_change_between_calls_of_a_kernel():
    network, X = build(NETWORKS[0])
    kernel = NetworkKernel(network)
    before = kernel(X)
    network.load_state_dict(build(NETWORKS[0], seed=1)[0].state_dict())
    np.testing.assert_allclose(kernel(X), NetworkKernel(copy.deepcopy(network))(X))
    assert not np.allclose(kernel(X), before)


def make_network_and_samples(samples):
    """Return a network, and samples for it."""
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    return network, torch.randn(samples, 64)


@pytest.fixture
def small_device(monkeypatch):
    """Make batches of more than five samples fail; return the sizes of the others."""
    attempt, sizes = GradientEngine._attempt, []

    def attempted(self, module, inputs, y, factored, verified=True):
        if len(inputs) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(inputs))
        return attempt(self, module, inputs, y, factored, verified)

    monkeypatch.setattr(GradientEngine, "_attempt", attempted)
    return sizes


def test_the_chunk_is_halved_if_memory_is_exhausted(small_device):
    network, X = make_network_and_samples(40)
    gram = NetworkKernel(network, "predicted", batch_size=20)(X)
    assert max(small_device) == 5
    expected = NetworkKernel(network, "predicted", batch_size=5)(X)
    np.testing.assert_array_equal(gram, expected)


def test_a_device_must_have_memory_for_one_sample(monkeypatch):
    network, X = make_network_and_samples(4)

    def full(self, module, inputs, y, factored, verified=True):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(GradientEngine, "_attempt", full)
    with pytest.raises(torch.OutOfMemoryError):
        NetworkKernel(network)(X)


def test_other_errors_do_not_halve_the_chunk(monkeypatch):
    network, X = make_network_and_samples(4)
    sizes = []

    def failing(self, module, inputs, y, factored, verified=True):
        sizes.append(len(inputs))
        raise RuntimeError("no such operation")

    monkeypatch.setattr(GradientEngine, "_attempt", failing)
    with pytest.raises(RuntimeError, match="no such operation"):
        NetworkKernel(network, batch_size=4)(X)
    assert sizes == [4]


def make_pipeline_engine(step):
    net = NeuralNetClassifier(nn.Linear(4, 2), criterion=nn.CrossEntropyLoss).initialize()
    return GradientEngine(resolve_network(Pipeline([("step", step), ("net", net)])))


def test_steps_before_the_network_must_transform_each_sample_independently():
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    independent = make_pipeline_engine(StandardScaler().fit(X))
    independent.check_samples_independent(Samples(X))
    dependent = make_pipeline_engine(FunctionTransformer(lambda X: X - X.mean(axis=0)))
    with pytest.raises(UnsupportedNetworkError, match="transform each sample independently"):
        dependent.check_samples_independent(Samples(X))
    dependent.check_samples_independent(Samples(X[:1]))


def test_the_jacobians_of_later_samples_are_computed_from_a_start():
    network, X = build(NETWORKS[0], n_samples=7)
    engine = GradientEngine(resolve_network(network), batch_size=2)
    chunks = list(engine.jacobians(Samples(X), start=3))
    assert [chunk for chunk, _ in chunks] == [slice(3, 5), slice(5, 7)]
    ((_, expected),) = GradientEngine(resolve_network(network)).jacobians(Samples(X))
    J = torch.cat([jacobian.materialize() for _, jacobian in chunks])
    torch.testing.assert_close(J, expected.materialize()[3:])


def test_an_error_of_the_network_is_raised_with_the_shape_of_the_samples():
    with pytest.raises(UnsupportedNetworkError, match=r"samples of shape \(3,\) \(torch.float32\)"):
        NetworkKernel(nn.Linear(4, 2))(torch.ones(5, 3))


def make_convolutions():
    """Return a network of convolutions at many positions, and samples for it."""
    layers = [nn.Conv2d(2, 4, 5, padding=2), nn.Tanh(), nn.Conv2d(4, 4, 5), nn.Flatten()]
    return nn.Sequential(*layers, nn.LazyLinear(1)), torch.randn(6, 2, 16, 16)


@pytest.mark.parametrize(("factored", "expected"), [(True, [0, 1, 2]), (False, [0, 0, 0])])
def test_windows_of_one_layer_are_in_memory_at_a_time(factored, expected, monkeypatch):
    """They are converted before those of the next layer are computed, unless they are kept."""
    network, X = make_convolutions()
    network(X)
    rule, windows, kept = served_blocks._call_rule, [], []

    def call_rule(*args):
        kept.append(sum(reference() is not None for reference in windows))
        blocks = rule(*args)
        windows.extend(weakref.ref(b.activations) for b in blocks if isinstance(b, FactorBlock))
        return blocks

    monkeypatch.setattr(served_blocks, "_call_rule", call_rule)
    engine = GradientEngine(resolve_network(network), batch_size=len(X))
    list(engine.jacobians(Samples(X), factored=factored))
    assert kept == expected


def test_chunks_of_factors_have_fewer_samples():
    network, X = make_convolutions()
    network(X)
    engine = GradientEngine(resolve_network(network))
    for factored in (True, False):
        list(engine.jacobians(Samples(X), factored=factored))
    assert engine._sample_bytes[True] > engine._sample_bytes[False]
