"""Functions that ``layers.py`` times: sknetsim's, their limits, and those of other packages.

Index legend: n samples, p parameters, d outputs.
"""

from contextlib import contextmanager
from copy import deepcopy
from functools import partial

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lib.peers.methods import compute_log_densities, compute_vmap_gradients

#: Largest number of elements of the gradients that another package computes at a time.
PEER_ELEMENTS, PEER_BATCH = 2**27, 64


def list_trainable(network):
    """Return the parameters that are trained."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


@contextmanager
def record_chunks(network):
    """Record inside the block the numbers of samples with which a network is called."""
    sizes = []

    def record(module, arguments):
        if type(module) is type(network) and arguments:
            sizes.append(len(arguments[0]))

    handle = register_module_forward_pre_hook(record)
    try:
        yield sizes
    finally:
        handle.remove()


def find_chunk(compute, network, X):
    """Return the largest number of samples with which a computation calls a network."""
    with record_chunks(network) as sizes:
        compute(network, X)
    return max(sizes)


def run_passes(network, X, batch_size):
    """Run, twice, a forward pass and as many backward passes as there are outputs.

    The backward pass of an output computes the gradients of the hidden layers and the sum of the
    gradients of the parameters over the samples. A density needs both once to be fitted. To score
    the samples, it needs products with the sums, which cost as much as the sums.
    """
    parameters = list_trainable(network)
    for batch in 2 * X.split(batch_size):
        for output in network(batch).sum(0):
            torch.autograd.grad(output, parameters, retain_graph=True)


def compute_peer_density(make, network, X):
    """Compute log densities from the per-sample gradients of another package, in two passes."""
    compute_gradients = make(network)
    count = sum(parameter.numel() for parameter in list_trainable(network))
    batches = X.split(max(1, min(PEER_BATCH, PEER_ELEMENTS // count)))

    def compute_units(batch):
        gradients = compute_gradients(batch).detach()
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True, dtype=torch.float64)
        return gradients / norms.float()

    # s = sum_n u_n, then <u_n, s>
    sums = sum(compute_units(batch).sum(0) for batch in batches)
    return compute_log_densities(
        torch.cat([(compute_units(batch) * sums).sum(1) for batch in batches])
    )


def make_loop(network):
    """Make the function of samples that returns gradients (n, p) by a loop over the samples."""
    parameters = list_trainable(network)

    def compute_row(sample):
        parts = torch.autograd.grad(network(sample[None]).sum(), parameters)
        return torch.cat([part.flatten() for part in parts])

    return lambda batch: torch.stack([compute_row(sample) for sample in batch])


def make_vmap(network):
    """Make the function of samples that returns gradients (n, p) by torch.func."""
    return partial(compute_vmap_gradients, network)


def make_opacus(network):
    """Make the function of samples that returns gradients (n, p) by Opacus.

    Opacus replaces layers that it does not support by its own, and batch normalisation by group
    normalisation.
    """
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    # In eval mode, Opacus records no activations. The networks have no dropout.
    copied = ModuleValidator.fix(deepcopy(network)).train()
    model = GradSampleModule(copied, loss_reduction="sum")

    def compute_gradients(batch):
        model.zero_grad()
        model(batch).sum().backward()
        parts = [parameter.grad_sample for parameter in list_trainable(model)]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    return compute_gradients


def make_backpack(network):
    """Make the function of samples that returns gradients (n, p) by BackPACK."""
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    model = extend(deepcopy(network), use_converter=not isinstance(network, nn.Sequential))

    def compute_gradients(batch):
        model.zero_grad()
        with backpack(BatchGrad()):
            model(batch).sum().backward()
        parts = [parameter.grad_batch for parameter in list_trainable(model)]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    return compute_gradients


#: Makers of functions that return per-sample gradients, by name.
PEERS = {
    "loop over samples": make_loop,
    "torch.func vmap(grad)": make_vmap,
    "Opacus": make_opacus,
    "BackPACK": make_backpack,
}
