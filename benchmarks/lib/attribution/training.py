"""Training of many networks of one shape at once, by batched matrix products."""

from itertools import pairwise

import torch
from torch import nn

#: Parameters of the networks that are trained together; they should fit into the cache.
TOGETHER = 1_000_000


def draw_parameters(sizes, count, generator):
    """Draw weights (count, inputs, outputs) and biases (count, 1, outputs), as `nn.Linear` does."""
    parameters = []
    for inputs, outputs in pairwise(sizes):
        for rows in (inputs, 1):
            uniform = torch.rand(count, rows, outputs, generator=generator) * 2 - 1
            parameters.append((uniform / inputs**0.5).requires_grad_())
    return parameters


def evaluate(parameters, X, dropout=0.0):
    """Return the outputs (m, n, d) of m networks for their own samples (m, n, inputs)."""
    last = len(parameters) - 2
    for layer in range(0, len(parameters), 2):
        weights, bias = parameters[layer : layer + 2]
        X = torch.baddbmm(bias, X, weights)
        if layer < last:
            X = nn.functional.dropout(torch.relu(X), dropout, training=dropout > 0)
    return X


def predict(parameters, X):
    """Return the outputs (m, n, d) of m networks for the same samples (n, inputs)."""
    with torch.no_grad():
        return evaluate(parameters, X.expand(len(parameters[0]), *X.shape))


def select_given(outputs, y):
    """Return a mask (..., d) of the outputs of the given labels (...)."""
    return torch.arange(outputs.shape[-1]) == y[..., None]


def compute_losses(outputs, y):
    """Return the loss of each sample: cross-entropy, or half of the squared error."""
    if y.is_floating_point():
        return (outputs - y).square().sum(-1) / 2
    # log sum_c exp z_c - z_y
    return outputs.logsumexp(-1) - (outputs * select_given(outputs, y)).sum(-1)


def compute_margins(outputs, y):
    """Return the margins z_y - log sum_{c != y} exp z_c of outputs (..., d)."""
    given = select_given(outputs, y)
    others = outputs.masked_fill(given, -torch.inf)
    return (outputs * given).sum(-1) - others.logsumexp(-1)


def measure_outputs(outputs, y):
    """Return what attributions explain, more is better: margins, or negative losses of numbers."""
    return -compute_losses(outputs, y) if y.is_floating_point() else compute_margins(outputs, y)


def train_networks(task, rows, seed):
    """Train one network on each row of ``rows`` (m, n), which are indices of training samples.

    Returns
    -------
    parameters : list of tensors
        Weights (m, inputs, outputs) and bias (m, 1, outputs) of each layer.
    """
    together = max(1, TOGETHER // task.n_parameters)
    chunks = [
        _train_chunk(task, chunk, seed + number)
        for number, chunk in enumerate(rows.split(together))
    ]
    return [torch.cat(parts) for parts in zip(*chunks, strict=True)]


def _train_chunk(task, rows, seed):
    torch.manual_seed(seed)  # Dropout takes no generator.
    generator = torch.Generator().manual_seed(seed)
    parameters = draw_parameters(task.sizes, len(rows), generator)
    settings = {"momentum": 0.9, "weight_decay": task.weight_decay}
    optimizer = torch.optim.SGD(parameters, lr=task.rate, **settings)
    for _ in range(task.epochs):
        order = rows.gather(1, torch.rand(rows.shape, generator=generator).argsort(1))
        for batch in order.split(task.batch_size, 1):
            # The networks do not share parameters, so each gets the gradient of its own mean.
            outputs = evaluate(parameters, task.X[batch], task.dropout)
            losses = compute_losses(outputs, task.y[batch])
            optimizer.zero_grad()
            losses.mean(1).sum().backward()
            optimizer.step()
    return [tensor.detach() for tensor in parameters]


def make_module(parameters, index):
    """Make a torch module with the parameters of one network."""
    layers = []
    for weights, bias in zip(parameters[::2], parameters[1::2], strict=True):
        linear = nn.Linear(*weights.shape[1:])
        linear.weight.data = weights[index].T.contiguous()
        linear.bias.data = bias[index, 0].clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def train_full_networks(task, count, seed=10_000):
    """Train networks on all training samples and return them as modules."""
    rows = torch.arange(len(task.X)).expand(count, -1)
    parameters = train_networks(task, rows, seed)
    return [make_module(parameters, index) for index in range(count)]
