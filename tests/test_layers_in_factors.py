"""Networks of every kind of layer against a double loop of autograd.grad."""

import functools

import numpy as np
import pytest
import torch

from sknetsim import NetworkDensity, NetworkKernel

from . import naive
from .cases import build
from .gradients.quantities import TOLERANCES
from .networks_of_layers import CASES
from .networks_of_layers.common import POSITIONS

SAMPLES = 8
#: Numbers of samples and of samples per batch.
SIZES = {
    "batches of one sample": (2, 1),
    "as many samples as positions": (POSITIONS, POSITIONS),
}
#: Cases whose networks compute norms or attention in float32 in any dtype.
ROUNDED = {"T5", "Llama"}
#: Cases with a parameter without axes, which the fallback does not compute.
SCALARS = {"where of a parameter", "temperature", "Swish with a slope", "weight_norm, dim None"}

cases = pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=case.name,
            marks=[pytest.mark.xfail(raises=IndexError, strict=False)] * (case.name in SCALARS),
        )
        for case in CASES
    ],
)


def choose_dtype(case):
    """Return float64, unless the network itself computes parts in float32."""
    return torch.float32 if case.name in ROUNDED else torch.float64


@functools.cache
def compute_jacobians(case):
    """Return the gradients of all samples by the double loop, in float64."""
    network, X = build(case, SAMPLES)
    return naive.jacobians(network, X)


def check_kernels(case, count, batch_size, dtype):
    """Compare K(x, x') of the first samples with the double loop, relative to the gradients."""
    network, X = build(case, SAMPLES, dtype)
    J = compute_jacobians(case)[:count]
    norms = np.linalg.norm(J, axis=(1, 2))
    scale = np.outer(norms, norms)[..., None, None]
    K = NetworkKernel(network, normalize=False, batch_size=batch_size).matrix(X[:count])
    np.testing.assert_allclose(
        K / scale, naive.kernel(J, J) / scale, rtol=0, atol=TOLERANCES[dtype]
    )


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@cases
def test_kernels_equal_the_double_loop(case, sizes):
    check_kernels(case, *sizes, choose_dtype(case))


@cases
def test_kernels_in_float32_equal_the_double_loop(case):
    check_kernels(case, SAMPLES, None, torch.float32)


@cases
def test_soft_densities_in_batches_equal_the_double_loop(case):
    dtype = choose_dtype(case)
    network, X = build(case, SAMPLES, dtype)
    J = compute_jacobians(case)
    # The sum of the similarities to the other samples, k^C(x, x) = 1 left out.
    sums = naive.correlation(J, J, np.finfo(float).eps).sum(1) - 1
    density = NetworkDensity(network, method="soft", batch_size=SAMPLES - 1).fit(X)
    expected = np.log1p(SAMPLES - 1 + sums) - np.log(SAMPLES)
    np.testing.assert_allclose(density.score_samples(X), expected, rtol=0, atol=TOLERANCES[dtype])
