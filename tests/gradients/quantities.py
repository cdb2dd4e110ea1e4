"""Quantities of the engine against a double loop of autograd.grad."""

import numpy as np
import torch

from sknetsim import GradientFeaturizer, NetworkKernel
from sknetsim._gradients.outputs import Outputs
from sknetsim._networks.network import resolve_network

from .. import naive
from ..cases import build

#: Absolute tolerances, relative to the largest value.
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}


def expected_jacobians(case, network, X):
    """Return the Jacobians from the double loop, in float64, for the same weights and inputs."""
    network = case.reference(network.double())
    outputs = Outputs(case.output, resolve_network(network))

    def select(raw):
        return outputs.select(raw, outputs.targets(raw, None))

    X = X.double() if X.is_floating_point() else X
    return naive.jacobians(network, X, select)


def check_quantities(case, dtype):
    """Compare grams, matrices, influences and features with their definitions in `naive`."""
    network, X = build(case, dtype=dtype)
    Y, eps, tolerance = X[2:], torch.finfo(dtype).eps, TOLERANCES[dtype]
    kernel = NetworkKernel(network, case.output)
    quantities = {
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
    np.testing.assert_allclose(quantities["raw"] / scale, K / scale, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        quantities["gram"], naive.correlation(J, J, eps), rtol=0, atol=tolerance
    )
    np.testing.assert_allclose(
        quantities["gram_of_others"], quantities["gram"][:, 2:], atol=tolerance
    )
    np.testing.assert_allclose(quantities["matrix"], KC, rtol=0, atol=tolerance)
    F = quantities["features"].astype(float)
    np.testing.assert_allclose(F @ F.T, quantities["gram"], rtol=0, atol=tolerance)
    influence = naive.influence(J, J[2:])
    influence = influence[..., 0, 0] if J.shape[1] == 1 else influence
    largest = np.abs(influence).max()
    np.testing.assert_allclose(quantities["influence"], influence, rtol=0, atol=tolerance * largest)
