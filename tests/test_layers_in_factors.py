"""Networks of every kind of layer against a double loop of autograd.grad."""

import functools

import numpy as np
import pytest
import torch

from sknetsim import NetworkKernel
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

from . import naive
from .cases import build
from .gradients.quantities import TOLERANCES
from .networks_of_layers import CASES
from .networks_of_layers.common import POSITIONS

SAMPLES = 8
#: Numbers of samples and of samples per batch.
ALL, SQUARE = (SAMPLES, SAMPLES - 1), (POSITIONS, POSITIONS)
SIZES = {"7 and 1 samples": ALL, "as many samples as positions": SQUARE}
#: Cases whose networks compute norms or attention in float32 in any dtype.
ROUNDED = {"T5", "Llama"}
#: Cases with parameters that the fallback computes.
EXOTIC = {
    "prototypes by cdist",
    "EmbeddingBag, max",
    "learnt memory of one row through a layer",
    "tokens sent to experts",
    "one sample at a time",
    "some of the tokens",
    "scripted layers",
    "autograd.Function",
    "vmap over weights",
    "vmap over the samples",
}

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def choose_dtype(case):
    """Return float64, unless the network itself computes parts in float32."""
    return torch.float32 if case.name in ROUNDED else torch.float64


@functools.cache
def compute_by_loop(case):
    """Return the gradients of all samples by the double loop, in float64, (n, d, P)."""
    network, X = build(case, SAMPLES)
    return naive.jacobians(network, X)


@functools.cache
def compute_by_engine(case, sizes):
    """Return the Jacobians of some samples by batches, and the parameters of the fallback."""
    count, batch_size = sizes
    network, X = build(case, SAMPLES, choose_dtype(case))
    engine = GradientEngine(resolve_network(network), batch_size=batch_size)
    jacobians = [jacobian for _, jacobian in engine.jacobians(Samples(X[:count]), factored=True)]
    return jacobians, engine.unserved


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@cases
def test_gradients_of_each_parameter_equal_the_double_loop(case, sizes):
    jacobians, _ = compute_by_engine(case, sizes)
    J = torch.cat([jacobian.materialize() for jacobian in jacobians]).numpy()
    expected = compute_by_loop(case)[: len(J)]
    start, largest = 0, np.abs(expected).max()
    for name, shape in jacobians[0].layout:
        part = slice(start, start := start + shape.numel())
        scale = np.abs(expected[..., part]).max() + largest / 100
        tolerance = TOLERANCES[choose_dtype(case)] * scale
        np.testing.assert_allclose(J[..., part], expected[..., part], 0, tolerance, err_msg=name)


@cases
def test_sums_of_gradients_equal_those_of_the_double_loop(case):
    jacobian, J = compute_by_engine(case, ALL)[0][0].for_sums(), compute_by_loop(case)[:-1]
    weights = torch.randn(*J.shape[:2], 3).to(jacobian.outputs)
    sums = jacobian.weighted_sum(weights)
    # s[v,p] = sum_n sum_o w[n,o,v] J[n,o,p], left out for parameters that no output depends on
    expected = np.einsum("nov,nop->vp", weights.numpy(), J)
    zeros = {name: weights.new_zeros(3, shape.numel()) for name, shape in jacobian.layout}
    result = np.concatenate([sums.get(name, zeros[name]) for name in zeros], axis=1)
    tolerance = TOLERANCES[choose_dtype(case)]
    np.testing.assert_allclose(result, expected, 0, tolerance * np.abs(expected).max())
    # K(x, x)
    kernels, expected = jacobian.self_kernel(), np.einsum("nop,nqp->noq", J, J)
    np.testing.assert_allclose(kernels, expected, 0, tolerance * np.abs(expected).max())


@cases
def test_kernels_in_float32_equal_the_double_loop(case):
    network, X = build(case, SAMPLES, torch.float32)
    J = compute_by_loop(case)
    norms = np.linalg.norm(J, axis=(1, 2))
    scale = np.outer(norms, norms)[..., None, None]
    K = NetworkKernel(network, normalize=False, batch_size=SAMPLES).matrix(X)
    tolerance = TOLERANCES[torch.float32]
    np.testing.assert_allclose(K / scale, naive.kernel(J, J) / scale, rtol=0, atol=tolerance)


@cases
def test_parameters_are_computed_in_factors(case):
    _, unserved = compute_by_engine(case, ALL)
    assert bool(unserved) == (case.name in EXOTIC), unserved
