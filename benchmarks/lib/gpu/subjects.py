"""Measurements of gpu.py: sknetsim, an epoch and torch.func, for one network in one setting.

Index legend: n, m samples; w parameters.
"""

import functools
import gc
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from lib.gpu.networks import draw_network_and_samples
from lib.peers.methods import normalize_gram
from lib.timing import Timing, describe_error
from sknetsim import GradientFeaturizer, NetworkDensity, NetworkKernel

#: Index of the output whose gradients are compared.
OUTPUT = 0
#: Samples of the comparison with autograd.
FEW = 4
#: Largest number of features.
FEATURES = 256
#: MiB of working_memory: scikit-learn's default, and a larger one.
BUDGET, LARGE_BUDGET = 1024, 16384


@dataclass(frozen=True)
class Setting:
    """Settings of scikit-learn, torch and sknetsim during a measurement.

    Attributes
    ----------
    name : str
        Name in the tables.
    memory : int
        ``working_memory`` of scikit-learn, in MiB.
    batched : bool
        If true, ``batch_size`` of the estimators is the batch size of the case, else None.
    tf32 : bool
        If true, the caller allows TF32.
    half : bool
        If true, the weights are in bfloat16.
    """

    name: str
    memory: int = LARGE_BUDGET
    batched: bool = True
    tf32: bool = False
    half: bool = False


def allow_tf32(allowed):
    """Allow or forbid TF32 in matrix products and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def apply_setting(setting):
    """Set ``working_memory`` and TF32 inside the block; release the memory at the end."""
    try:
        allow_tf32(setting.tf32)
        with sklearn.config_context(working_memory=setting.memory):
            yield
    finally:
        allow_tf32(False)
        release_memory()


def release_memory():
    """Release the device memory that is not in use."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


@dataclass
class Subject:
    """A network on its device, and its samples on the CPU."""

    case: Any
    network: nn.Module
    X: torch.Tensor
    batch_size: int | None
    half: bool

    @classmethod
    def create(cls, case, device, setting):
        """Copy the network of a case to a device, in the precision of a setting."""
        network, X = draw_network_and_samples(case)
        network = copy_in_precision(network, setting.half).to(device)
        return cls(case, network, X, case.batch if setting.batched else None, setting.half)

    @property
    def parameter_count(self):
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def device(self):
        """Device of the network."""
        return next(self.network.parameters()).device

    def compute_density(self, X):
        """Return the soft log densities of samples, fitted on the same samples."""
        estimator = NetworkDensity(self.network, OUTPUT, batch_size=self.batch_size)
        return estimator.fit(X).score_samples(X)

    def compute_gram(self, X):
        """Return the similarities of all pairs of samples."""
        return NetworkKernel(self.network, OUTPUT, batch_size=self.batch_size)(X)

    def fit_featurizer(self, X):
        """Compute features of samples, with landmarks among them, and return the featurizer."""
        featurizer = GradientFeaturizer(
            self.network,
            OUTPUT,
            n_components=min(FEATURES, len(X) // 2),
            batch_size=self.batch_size,
            random_state=0,
        )
        featurizer.fit_transform(X)
        return featurizer

    def make_epoch(self, batch):
        """Return a function that runs an epoch over samples, in training mode.

        The epoch is in training mode because the recurrent layers of cuDNN have a backward pass in
        that mode only.
        """
        network = deepcopy(self.network).train()
        dtype = next(network.parameters()).dtype

        def run_epoch(X):
            for inputs in X.split(batch):
                inputs = inputs.to(self.device, dtype if inputs.is_floating_point() else None)
                network.zero_grad()
                network(inputs).sum().backward()

        return run_epoch

    def find_fastest_epoch(self, X):
        """Return the epoch with the faster of two batch sizes, after two calls of each."""
        sizes = (self.case.batch, 4 * self.case.batch)
        timings = [Timing(self.make_epoch(size)) for size in sizes]
        for timing in timings * 2:
            timing.call(X)
        fastest = min(timings, key=lambda timing: timing.seconds[-1] if timing.seconds else np.inf)
        return fastest.function

    def compute_peer_gram(self, X):
        """Return the similarities of all pairs of samples from the gradients of torch.func."""
        parameters = {name: value.detach() for name, value in self.network.named_parameters()}

        def compute_output(parameters, sample):
            return functional_call(self.network, parameters, (sample[None],))[0, OUTPUT]

        compute_gradients = vmap(grad(compute_output), in_dims=(None, 0), randomness="different")
        # J[n,w] = d f(x_n) / d theta[w]
        jacobian = torch.empty(len(X), self.parameter_count, device=self.device)
        batches = (part.split(self.case.batch) for part in (jacobian, X))
        with self._disable_recurrent_cudnn():
            for rows, inputs in zip(*batches, strict=True):
                parts = compute_gradients(parameters, inputs.to(self.device)).values()
                torch.cat([part.flatten(1) for part in parts], dim=1, out=rows)
        # K[n,m] = sum_w J[n,w] J[m,w]
        return normalize_gram(jacobian @ jacobian.T).cpu().numpy()

    def _disable_recurrent_cudnn(self):
        """Disable cuDNN inside the block if the network has recurrent layers.

        Those of cuDNN have no backward pass in eval mode.
        """
        if any(isinstance(part, nn.RNNBase) for part in self.network.modules()):
            return torch.backends.cudnn.flags(enabled=False, allow_tf32=False)
        return nullcontext()

    def describe_difference(self, timing):
        """Return the largest difference of a timed gram matrix from the reference, as text."""
        if timing.failure:
            return timing.failure
        expected = compute_reference(self.case, self.half)
        return f"{np.abs(timing.result[:FEW, :FEW] - expected).max():.1e}"


def copy_in_precision(network, half):
    """Return a copy of a network, in bfloat16 if ``half`` is true."""
    copied = deepcopy(network)
    return copied.bfloat16() if half else copied


@functools.cache
def compute_reference(case, half):
    """Return the similarities of a few samples from autograd, in float64 on the CPU."""
    network, X = draw_network_and_samples(case)
    network = copy_in_precision(network, half).double()
    X = X[:FEW].double() if X.is_floating_point() else X[:FEW]
    parameters, gradients = list(network.parameters()), []
    for sample in X:
        output = network(sample[None])[0, OUTPUT]
        parts = torch.autograd.grad(output, parameters, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    # K[n,m] = sum_w J[n,w] J[m,w]
    gram = torch.stack([torch.stack([a @ b for b in gradients]) for a in gradients])
    return normalize_gram(gram).numpy()


def measure_cells(subject, measurements):
    """Return the cells of a subject: its number of parameters, then those of each measurement.

    ``measurements`` are functions of a subject with their numbers of cells. A measurement that
    fails leaves the cells of the others unchanged.
    """
    cells = [f"{subject.parameter_count:,}"]
    for measure, width in measurements.items():
        try:
            measured = measure(subject)
        except Exception as error:
            measured = [describe_error(error)]
        cells += pad_cells(measured, width)
        release_memory()
    return cells


def pad_cells(cells, width):
    """Return cells, followed by dashes up to a number of cells."""
    return [*cells, *["–"] * (width - len(cells))]
