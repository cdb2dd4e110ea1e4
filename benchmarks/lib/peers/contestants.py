"""The contestants: each gives the same quantity in its own way.

A contestant is called with a subject (the network, or what ``PREPARE`` makes of it), the rows, and
a batch size where it has one. Index legend: n samples, p parameters.
"""

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from lib.networks import product_widths
from sknetsim import NetworkDensity, NetworkKernel

VMAP_BATCH = 128
PROJECTED_FEATURES = 512
PRODUCT_ROWS = 500


def cosines(gram):
    """A gram matrix of cosines, in place."""
    norms = gram.diagonal().sqrt()
    return gram.div_(norms[:, None]).div_(norms)


def gram(network, X):
    """Ours: normalised; with several outputs, the whitened trace kernel."""
    return NetworkKernel(network)(X)


def matrix(network, X):
    """Ours: the d x d kernels of all pairs."""
    return NetworkKernel(network, normalize=False).matrix(X)


def density(network, X):
    """Ours: log densities of the fitted rows themselves."""
    return NetworkDensity(network).fit(X).score_samples(X)


def fitted(network, X):
    """Ours: the density's first half."""
    return NetworkDensity(network).fit(X)


def fit(network, X):
    """Ours: the density's first half alone, without a result to compare."""
    fitted(network, X)


def score(fitted_density, X):
    """Ours: the density's second half."""
    return fitted_density.score_samples(X)


def epoch(network, X, batch_size):
    """Forward and backward passes."""
    for batch in X.split(batch_size):
        network.zero_grad()
        network(batch).sum().backward()


def factors(network, X):
    """Matrices of the shapes whose products make the gram; not timed."""
    return [torch.randn(len(X), width) for width in product_widths(network)]


def products(factors, X):
    """The products of half of the pairs, as a symmetric gram needs, and nothing else."""
    for columns in torch.arange(len(X)).split(PRODUCT_ROWS):
        last = columns[-1] + 1
        for factor in factors:
            factor[:last] @ factor[columns].mT


def loop(network, X):
    """One backward pass for each sample, its gradient written into a matrix."""
    parameters = list(network.parameters())
    gradients = torch.empty(len(X), sum(parameter.numel() for parameter in parameters))
    for row, sample in zip(gradients, X, strict=True):
        found = torch.autograd.grad(network(sample[None]).sum(), parameters)
        torch.cat([part.reshape(-1) for part in found], out=row)
    return cosines(gradients @ gradients.T)


def vmap_gradients(network, X):
    """Per-sample gradients of torch.func, in one matrix."""
    parameters = {name: value.detach() for name, value in network.named_parameters()}

    def output(parameters, sample):
        return functional_call(network, parameters, (sample[None],)).sum()

    per_sample = vmap(grad(output), in_dims=(None, 0))
    gradients = torch.empty(len(X), sum(value.numel() for value in parameters.values()))
    for rows, batch in zip(gradients.split(VMAP_BATCH), X.split(VMAP_BATCH), strict=True):
        found = per_sample(parameters, batch).values()
        torch.cat([part.flatten(1) for part in found], dim=1, out=rows)
    return gradients


def vmap_gram(network, X):
    """The product of the gradients of torch.func."""
    gradients = vmap_gradients(network, X)
    return cosines(gradients @ gradients.T)


class Batches(torch.utils.data.Dataset):
    """Rows that a data loader takes batch by batch, not one by one."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitems__(self, indices):
        return (self.X[indices[0] : indices[-1] + 1].detach(),)


def nngeometry_matrix(network, X, batch_size):
    """nngeometry's gram, of shape (d, n, d, n); it only asks for input gradients."""
    from nngeometry.gram import GramMatrix

    loader = torch.utils.data.DataLoader(Batches(X), batch_size=batch_size, collate_fn=tuple)
    found = GramMatrix(network, loader, function=lambda rows: network(rows)).to_torch()
    return found.permute(1, 3, 0, 2)


def nngeometry_gram(network, X, batch_size):
    """nngeometry's gram of one output."""
    return cosines(nngeometry_matrix(network, X, batch_size)[:, :, 0, 0])


def bmdal_gram(network, X, batch_size):
    """bmdal_reg's exact gradient kernel; batches of the backward passes, products in one."""
    np.Inf = np.inf
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.features import Features
    from bmdal_reg.bmdal.layer_features import LinearGradientComputation, create_grad_feature_map

    layers = [LinearGradientComputation(part) for part in network if isinstance(part, nn.Linear)]
    features = Features(create_grad_feature_map(network, layers), TensorFeatureData(X))
    features = features.batched(batch_size).precompute().simplify()
    return cosines(features.get_kernel_matrix(features))


def projector(network, X):
    """traker's gradients and random projection, drawn once and not timed."""
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.projectors import BasicProjector

    count = sum(parameter.numel() for parameter in network.parameters())
    gradients = FunctionalGradientComputer(network, SumOfOutputs(), count, torch.float32, "cpu")
    size = PROJECTED_FEATURES
    return gradients, BasicProjector(count, size, 0, "rademacher", "cpu", block_size=size)


class SumOfOutputs:
    """What traker differentiates."""

    @staticmethod
    def get_output(network, parameters, buffers, sample):
        """The network's output at one sample."""
        return functional_call(network, (parameters, buffers), (sample[None],)).sum()


def traker_density(subject, X, batch_size):
    """Log densities from traker's projected gradients, normalised."""
    gradients, projection = subject
    projected = [
        projection.project(gradients.compute_per_sample_grad((batch,)), 0)
        for batch in X.split(batch_size)
    ]
    units = nn.functional.normalize(torch.cat(projected).double())
    others = units @ units.sum(0) - 1
    return torch.log1p(len(X) - 1 + others) - np.log(len(X))


PREPARE = {products: factors, score: fitted, traker_density: projector}
