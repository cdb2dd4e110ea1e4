"""Slow definition of the influence: loops of autograd.grad, and a dense inverse."""

import torch

from .cases import get_logits


def compute_margin(z, y):
    """Return the log-odds of a class, or the mean of signed logits of several labels."""
    if y.ndim:
        return ((2 * y - 1) * z).mean()
    if len(z) == 1:
        return z[0] if y == 1 else -z[0]
    others = torch.cat([z[:y], z[y + 1 :]])
    return z[y] - others.logsumexp(dim=0)


def differentiate(module, value):
    """Return the gradient of a number in all parameters, as one vector."""
    gradients = torch.autograd.grad(value, list(module.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def compute_jacobian(case, module, x):
    """Return the Jacobian of the logits at one sample, of shape (d, P)."""
    return torch.stack([differentiate(module, z) for z in get_logits(case, module, x)])


def compute_curvature(case, module, X, y):
    """Return the Gauss-Newton matrix, of shape (P, P)."""
    total = 0
    for x, label in zip(X, y, strict=True):
        J, z = compute_jacobian(case, module, x), get_logits(case, module, x).detach()
        hessian = torch.autograd.functional.hessian(lambda z, label=label: case.loss(z, label), z)
        total = total + J.mT @ hessian.reshape(len(z), len(z)) @ J
    return total / len(X)


def damp(curvature, damping):
    """Return the curvature plus its damping, in units of the mean eigenvalue."""
    identity = torch.eye(len(curvature), dtype=curvature.dtype)
    return curvature + damping * curvature.diagonal().mean() * identity


def compute_gradients(case, module, X, y, measure):
    """Return the gradients of the measured quantity at each sample, of shape (n, P)."""
    function = compute_margin if measure == "margin" else case.loss
    rows = [
        differentiate(module, function(get_logits(case, module, x), label))
        for x, label in zip(X, y, strict=True)
    ]
    return torch.stack(rows)


def compute_influence(case, module, X, y, queries, labels, measure, damping):
    """Return the influence of each fitted sample on each query, of shape (q, n)."""
    matrix = damp(compute_curvature(case, module, X, y), damping)
    losses = compute_gradients(case, module, X, y, "loss")
    measured = compute_gradients(case, module, queries, labels, measure)
    sign = -1 if measure == "margin" else 1
    return (sign * measured @ torch.linalg.solve(matrix, losses.mT) / len(X)).numpy()
