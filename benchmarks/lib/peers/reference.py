"""Reference results: sknetsim in float64, which is checked against a double loop of autograd."""

import numpy as np
import torch

FEW = 6


def compute_jacobians(network, X):
    """Compute Jacobians (n, d, p) by a loop over samples and outputs."""
    parameters = list(network.parameters())

    def compute_row(output):
        parts = torch.autograd.grad(output, parameters, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in parts])

    outputs = [network(sample[None])[0] for sample in X]
    rows = [torch.stack([compute_row(output) for output in sample]) for sample in outputs]
    return torch.stack(rows)


def compute_naive_matrix(network, X):
    """Compute the kernels (n, n, d, d) of all pairs."""
    jacobians = compute_jacobians(network, X)
    # K[n,m,o,q] = <J_o(x_n), J_q(x_m)>
    return torch.einsum("nop,mqp->nmoq", jacobians, jacobians)


def compute_naive_gram(network, X):
    """Compute the trace of the whitened kernels, divided by the number of outputs."""
    kernels = compute_naive_matrix(network, X)
    # W[n] = K[n,n]^(-1/2)
    values, vectors = torch.linalg.eigh(torch.einsum("nnoq->noq", kernels))
    roots = vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT
    # tr(W[n] K[n,m] W[m]) / d
    whitened = roots[:, None] @ kernels @ roots[None]
    return torch.einsum("nmoo->nm", whitened) / kernels.shape[-1]


def compute_naive_density(network, X):
    """Compute log densities from the gram matrix without its diagonal."""
    counts = compute_naive_gram(network, X).sum(1) - 1
    return torch.log1p(len(X) - 1 + counts) - np.log(len(X))


NAIVE = {
    "gram": compute_naive_gram,
    "matrix": compute_naive_matrix,
    "density": compute_naive_density,
}


def compute_relative_error(result, expected):
    """Return the norm of the difference, divided by the norm of ``expected``."""
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))


def compute_reference(quantity, method, network, X):
    """Compute the result of sknetsim's method in float64 and check it on a few samples."""
    network, X = network.double(), X.double()
    few, expected = X[:FEW], NAIVE[quantity](network, X[:FEW]).numpy()
    reference = method(network, X)
    # A density depends on all samples, so that a few of them need their own call.
    result = method(network, few) if quantity == "density" else reference[:FEW, :FEW]
    error = compute_relative_error(result, expected)
    if error > 1e-10:
        raise RuntimeError(
            f"The relative error of the reference ({quantity}) must be at most 1e-10 on {FEW}"
            f" samples; got {error:.1e}."
        )
    return reference
