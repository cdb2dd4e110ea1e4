"""The slow obvious way: loops of autograd.grad, and the formulas of the paper written out."""

import numpy as np
import torch


def jacobians(network, X, select=None, call=None):
    """Gradients of each output at each sample, (n, d, P), by a double loop.

    ``select`` makes a row of outputs of the network's raw output for one sample; ``call`` runs
    the network on the index of a sample.
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
    found = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g.to_dense()).flatten()
            for p, g in zip(parameters, found, strict=True)
        ]
    )


def kernel(J, J2):
    """K(x, x') of shape (n, m, d, d)."""
    return np.einsum("nop,mqp->nmoq", J, J2)


def inverse_root(K, eps):
    """Pseudo-inverse square root and rank of one self-kernel."""
    values, vectors = np.linalg.eigh(K)
    kept = values > 10 * len(K) * eps * max(values[-1], 0)
    scales = np.zeros_like(values)
    scales[kept] = values[kept] ** -0.5
    return vectors @ np.diag(scales) @ vectors.T, int(kept.sum())


def normalized_kernel(J, J2, eps):
    """K^C of shape (n, m, d, d), and the ranks of both sides."""
    roots, ranks = zip(*[inverse_root(j @ j.T, eps) for j in J], strict=True)
    roots2, ranks2 = zip(*[inverse_root(j @ j.T, eps) for j in J2], strict=True)
    K = kernel(J, J2)
    result = np.stack(
        [np.stack([roots[i] @ K[i, j] @ roots2[j] for j in range(len(J2))]) for i in range(len(J))]
    )
    return result, np.array(ranks), np.array(ranks2)


def correlation(J, J2, eps):
    """k^C of shape (n, m)."""
    KC, ranks, ranks2 = normalized_kernel(J, J2, eps)
    scale = np.sqrt(np.outer(ranks, ranks2))
    return np.divide(np.einsum("nmoo->nm", KC), scale, out=np.zeros(scale.shape), where=scale > 0)


def influence(J, J2):
    """k^N(x -> x') = K(x', x) K(x, x)^{-1} of shape (n, m, d, d)."""
    return np.stack([np.stack([(j2 @ j.T) @ np.linalg.pinv(j @ j.T) for j2 in J2]) for j in J])
