"""What is compared with: the package in float64, itself checked by a double loop of autograd."""

import numpy as np
import torch

FEW = 6


def jacobians(network, X):
    """By a loop over samples and outputs, of shape (n, d, p)."""
    parameters = list(network.parameters())

    def row(output):
        found = torch.autograd.grad(output, parameters, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in found])

    outputs = [network(sample[None])[0] for sample in X]
    return torch.stack([torch.stack([row(output) for output in sample]) for sample in outputs])


def naive_matrix(network, X):
    """All products of two rows of Jacobians."""
    found = jacobians(network, X)
    return torch.einsum("nop,mqp->nmoq", found, found)


def naive_gram(network, X):
    """The trace of the whitened products, divided by the number of outputs."""
    kernels = naive_matrix(network, X)
    values, vectors = torch.linalg.eigh(torch.einsum("nnoq->noq", kernels))
    roots = vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT
    whitened = roots[:, None] @ kernels @ roots[None]
    return torch.einsum("nmoo->nm", whitened) / kernels.shape[-1]


def naive_density(network, X):
    """From the gram without its diagonal."""
    counts = naive_gram(network, X).sum(1) - 1
    return torch.log1p(len(X) - 1 + counts) - np.log(len(X))


NAIVE = {"gram": naive_gram, "matrix": naive_matrix, "density": naive_density}


def relative_error(found, expected):
    """Norm of the difference over the norm."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def checked_reference(quantity, ours, network, X):
    """Ours in float64, after a comparison on a few rows."""
    network, X = network.double(), X.double()
    few, expected = X[:FEW], NAIVE[quantity](network, X[:FEW]).numpy()
    reference = ours(network, X)
    # A density depends on all rows, so that few of them need a call of their own.
    found = ours(network, few) if quantity == "density" else reference[:FEW, :FEW]
    error = relative_error(found, expected)
    if error > 1e-10:
        raise RuntimeError(f"The reference is off by {error:.1e} on {FEW} rows ({quantity}).")
    return reference
