"""Methods that compute the same quantities, by sknetsim and by other packages.

A method is called with a subject (the network, or what its function in ``PREPARE`` makes of it),
the samples, and a batch size if it has one. Index legend: n samples, p parameters, d outputs.
"""

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from lib.networks import list_product_widths
from sknetsim import NetworkDensity, NetworkKernel

VMAP_BATCH = 128
PROJECTED_FEATURES = 512
PRODUCT_SAMPLES = 500


def normalize_gram(gram):
    """Turn a gram matrix into cosines, in place."""
    # K[n,m] / sqrt(K[n,n] K[m,m])
    norms = gram.diagonal().sqrt()
    return gram.div_(norms[:, None]).div_(norms)


def compute_gram(network, X):
    """Compute sknetsim's gram matrix; with several outputs, the whitened trace kernel."""
    return NetworkKernel(network)(X)


def compute_matrix(network, X):
    """Compute sknetsim's d x d kernels of all pairs."""
    return NetworkKernel(network, normalize=False).matrix(X)


def compute_density(network, X):
    """Compute sknetsim's log densities of the fitted samples themselves."""
    return NetworkDensity(network).fit(X).score_samples(X)


def fit_density(network, X):
    """Fit sknetsim's density."""
    return NetworkDensity(network).fit(X)


def run_density_fit(network, X):
    """Fit sknetsim's density, without a result that could be compared."""
    fit_density(network, X)


def score_density(density, X):
    """Compute the log densities of samples by a fitted density of sknetsim."""
    return density.score_samples(X)


def run_epoch(network, X, batch_size):
    """Run a forward and a backward pass over the samples."""
    for batch in X.split(batch_size):
        network.zero_grad()
        network(batch).sum().backward()


def make_factors(network, X):
    """Make random matrices with the shapes that are multiplied for the gram matrix."""
    return [torch.randn(len(X), width) for width in list_product_widths(network)]


def multiply_factors(factors, X):
    """Compute only the products of half of the pairs, as a symmetric gram matrix needs."""
    for columns in torch.arange(len(X)).split(PRODUCT_SAMPLES):
        stop = columns[-1] + 1
        for factor in factors:
            factor[:stop] @ factor[columns].mT


def compute_gram_by_loop(network, X):
    """Compute the gram matrix from one backward pass per sample."""
    parameters = list(network.parameters())
    gradients = torch.empty(len(X), sum(parameter.numel() for parameter in parameters))
    for row, sample in zip(gradients, X, strict=True):
        parts = torch.autograd.grad(network(sample[None]).sum(), parameters)
        torch.cat([part.reshape(-1) for part in parts], out=row)
    return normalize_gram(gradients @ gradients.T)


def compute_vmap_gradients(network, X):
    """Compute per-sample gradients (n, p) with torch.func."""
    parameters = {
        name: value.detach() for name, value in network.named_parameters() if value.requires_grad
    }

    def compute_output(parameters, sample):
        return functional_call(network, parameters, (sample[None],)).sum()

    compute_gradients = vmap(grad(compute_output), in_dims=(None, 0))
    gradients = torch.empty(len(X), sum(value.numel() for value in parameters.values()))
    for rows, batch in zip(gradients.split(VMAP_BATCH), X.split(VMAP_BATCH), strict=True):
        parts = compute_gradients(parameters, batch).values()
        torch.cat([part.flatten(1) for part in parts], dim=1, out=rows)
    return gradients


def compute_vmap_gram(network, X):
    """Compute the gram matrix from the gradients of torch.func."""
    gradients = compute_vmap_gradients(network, X)
    return normalize_gram(gradients @ gradients.T)


class Batches(torch.utils.data.Dataset):
    """Samples that a data loader reads by batches, not one by one."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitems__(self, indices):
        return (self.X[indices[0] : indices[-1] + 1].detach(),)


def compute_nngeometry_matrix(network, X, batch_size):
    """Compute nngeometry's kernels (n, n, d, d), which only need gradients of the inputs."""
    from nngeometry.gram import GramMatrix

    loader = torch.utils.data.DataLoader(Batches(X), batch_size=batch_size, collate_fn=tuple)
    gram = GramMatrix(network, loader, function=lambda batch: network(batch)).to_torch()
    return gram.permute(1, 3, 0, 2)  # From (d, n, d, n).


def compute_nngeometry_gram(network, X, batch_size):
    """Compute nngeometry's gram matrix of a network with one output."""
    return normalize_gram(compute_nngeometry_matrix(network, X, batch_size)[:, :, 0, 0])


def compute_bmdal_gram(network, X, batch_size):
    """Compute bmdal_reg's exact gradient kernel: batched backward passes, one matrix product."""
    np.Inf = np.inf  # bmdal_reg was written for numpy 1.
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.features import Features
    from bmdal_reg.bmdal.layer_features import LinearGradientComputation, create_grad_feature_map

    layers = [LinearGradientComputation(part) for part in network if isinstance(part, nn.Linear)]
    features = Features(create_grad_feature_map(network, layers), TensorFeatureData(X))
    features = features.batched(batch_size).precompute().simplify()
    return normalize_gram(features.get_kernel_matrix(features))


def compute_log_densities(sums):
    """Compute the log densities of fitted samples from the sums of their similarities (n,)."""
    # sum_m <u_n, u_m> without m = n, whose product is 1.
    others = sums - 1
    return torch.log1p(len(sums) - 1 + others) - np.log(len(sums))


def make_projector(network, X):
    """Make traker's gradient computer and its random projection, which is drawn once."""
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.projectors import BasicProjector

    count = sum(parameter.numel() for parameter in network.parameters())
    gradients = FunctionalGradientComputer(network, SumOfOutputs(), count, torch.float32, "cpu")
    size = PROJECTED_FEATURES
    return gradients, BasicProjector(count, size, 0, "rademacher", "cpu", block_size=size)


class SumOfOutputs:
    """Function of a sample that traker differentiates."""

    @staticmethod
    def get_output(network, parameters, buffers, sample):
        """Return the network's output for one sample."""
        return functional_call(network, (parameters, buffers), (sample[None],)).sum()


def compute_traker_density(subject, X, batch_size):
    """Compute log densities from traker's projected gradients, scaled to length 1."""
    gradients, projection = subject
    projected = [
        projection.project(gradients.compute_per_sample_grad((batch,)), 0)
        for batch in X.split(batch_size)
    ]
    units = nn.functional.normalize(torch.cat(projected).double())
    return compute_log_densities(units @ units.sum(0))


#: Functions of network and samples that make the subject of a method; they are not timed.
PREPARE = {
    multiply_factors: make_factors,
    score_density: fit_density,
    compute_traker_density: make_projector,
}
