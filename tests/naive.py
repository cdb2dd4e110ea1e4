"""Slow definitions: loops of autograd.grad, and the formulas of the paper."""

import numpy as np
import torch


def jacobians(network, X, select=None, call=None):
    """Return the gradients of each output at each sample, of shape (n, d, P), by a double loop.

    ``select`` returns the d outputs from the network's raw output for one sample. ``call`` runs the
    network on the sample with an index, in place of ``network(X[index : index + 1])``.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    rows = []
    for index in range(len(X)) if call is None else range(call.count):
        raw = network(X[index : index + 1]) if call is None else call(index)
        outputs = (raw if select is None else select(raw)).reshape(-1)
        rows.append(torch.stack([_gradient(output, parameters) for output in outputs]))
    for module, training in modes:
        module.training = training
    return torch.stack(rows).double().numpy()


def _gradient(output, parameters):
    """Return the gradient of one output as one vector, with zeros for unused parameters."""
    gradients = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient.to_dense()).flatten()
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
    )


def kernel(J, J2):
    """Return K(x, x') = J(x) J(x')^T, of shape (n, m, d, d)."""
    return np.einsum("nop,mqp->nmoq", J, J2)


def inverse_root(K, eps):
    """Return the pseudo-inverse square root and the rank of one self-kernel."""
    values, vectors = np.linalg.eigh(K)
    positive = values > 10 * len(K) * eps * max(values[-1], 0)
    inverse_roots = np.zeros_like(values)
    inverse_roots[positive] = values[positive] ** -0.5
    return vectors @ np.diag(inverse_roots) @ vectors.T, int(positive.sum())


def normalized_kernel(J, J2, eps):
    """Return K^C = K(x,x)^{-1/2} K(x,x') K(x',x')^{-1/2}, and the ranks of both self-kernels.

    The shape of K^C is (n, m, d, d).
    """
    roots, ranks = zip(*[inverse_root(j @ j.T, eps) for j in J], strict=True)
    roots2, ranks2 = zip(*[inverse_root(j @ j.T, eps) for j in J2], strict=True)
    K = kernel(J, J2)
    KC = np.stack(
        [np.stack([roots[n] @ K[n, m] @ roots2[m] for m in range(len(J2))]) for n in range(len(J))]
    )
    return KC, np.array(ranks), np.array(ranks2)


def correlation(J, J2, eps):
    """Return k^C = tr K^C / sqrt(r r'), of shape (n, m); 0 if a rank is 0."""
    KC, ranks, ranks2 = normalized_kernel(J, J2, eps)
    scale = np.sqrt(np.outer(ranks, ranks2))
    return np.divide(np.einsum("nmoo->nm", KC), scale, out=np.zeros(scale.shape), where=scale > 0)


def influence(J, J2):
    """Return k^N(x -> x') = K(x', x) K(x, x)^{-1}, of shape (n, m, d, d)."""
    return np.stack([np.stack([(j2 @ j.T) @ np.linalg.pinv(j @ j.T) for j2 in J2]) for j in J])
