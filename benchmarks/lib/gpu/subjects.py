"""What gpu.py times: the package, an epoch and torch.func, on one network in one setting."""

import functools
import gc
import statistics
import time
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sklearn
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from lib.gpu.networks import drawn
from lib.peers.methods import normalize_gram
from sknetsim import GradientFeaturizer, NetworkDensity, NetworkKernel

OUTPUT = 0
FEW = 4
FEATURES = 256
ROUNDS = 3
# No further round after so many seconds.
SLOW_SECONDS = 5
# MiB of working_memory: scikit-learn's default, and what suits the device.
BUDGET, LARGE_BUDGET = 1024, 16384
# Of an error, in a cell of a table.
MESSAGE = 150


@dataclass(frozen=True)
class Setting:
    """How a network is measured: by default, as a user finds the package."""

    name: str
    memory: int = LARGE_BUDGET
    batched: bool = True
    tf32: bool = False
    half: bool = False


def allow_tf32(allowed):
    """Allow matrix products and convolutions in TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def applied(chosen):
    """Set memory and TF32 as a user would, and clear up."""
    try:
        allow_tf32(chosen.tf32)
        with sklearn.config_context(working_memory=chosen.memory):
            yield
    finally:
        allow_tf32(False)
        freed()


def freed():
    """Give unused device memory back."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass
class Subject:
    """A network on its device, and its rows on the CPU."""

    case: Any
    network: nn.Module
    X: torch.Tensor
    batch_size: int | None
    half: bool

    @classmethod
    def of(cls, case, device, chosen):
        """Put a copy of the network where it is to be."""
        network, X = drawn(case)
        network = in_precision(network, chosen.half).to(device)
        return cls(case, network, X, case.batch if chosen.batched else None, chosen.half)

    @property
    def size(self):
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def device(self):
        """Return where the network is."""
        return next(self.network.parameters()).device

    def density(self, X):
        """Return soft log densities of the rows themselves."""
        estimator = NetworkDensity(self.network, OUTPUT, batch_size=self.batch_size)
        return estimator.fit(X).score_samples(X)

    def gram(self, X):
        """Return the similarities of all pairs."""
        return NetworkKernel(self.network, OUTPUT, batch_size=self.batch_size)(X)

    def features(self, X):
        """Return the featurizer, after it has made features from landmarks."""
        chosen = {"n_components": min(FEATURES, len(X) // 2), "random_state": 0}
        found = GradientFeaturizer(self.network, OUTPUT, batch_size=self.batch_size, **chosen)
        found.fit_transform(X)
        return found

    def epoch(self, batch):
        """Return forward and backward passes over rows, in training mode."""
        # cuDNN's recurrent layers have a backward pass in that mode alone.
        network = deepcopy(self.network).train()
        dtype = next(network.parameters()).dtype

        def passes(X):
            for rows in X.split(batch):
                rows = rows.to(self.device, dtype if rows.is_floating_point() else None)
                network.zero_grad()
                network(rows).sum().backward()

        return passes

    def fastest_epoch(self, X):
        """Return the epoch with the better of two batch sizes."""
        found = [Timed(self.epoch(batch)) for batch in (self.case.batch, 4 * self.case.batch)]
        for timed in found * 2:
            timed.call(X)
        return min(found, key=lambda timed: timed.seconds[-1] if timed.seconds else 1e9).function

    def peer(self, X):
        """Return the similarities by torch.func: gradients written out, and their product."""
        parameters = {name: value.detach() for name, value in self.network.named_parameters()}

        def output(parameters, sample):
            return functional_call(self.network, parameters, (sample[None],))[0, OUTPUT]

        per_sample = vmap(grad(output), in_dims=(None, 0), randomness="different")
        gradients = torch.empty(len(X), self.size, device=self.device)
        batches = (part.split(self.case.batch) for part in (gradients, X))
        with self._differentiable():
            for rows, batch in zip(*batches, strict=True):
                found = per_sample(parameters, batch.to(self.device)).values()
                torch.cat([part.flatten(1) for part in found], dim=1, out=rows)
        return normalize_gram(gradients @ gradients.T).cpu().numpy()

    def _differentiable(self):
        """Leave cuDNN out where its recurrent layers would be differentiated in eval mode."""
        if any(isinstance(part, nn.RNNBase) for part in self.network.modules()):
            return torch.backends.cudnn.flags(enabled=False, allow_tf32=False)
        return nullcontext()

    def difference(self, timed):
        """Say how far a gram is from autograd's in float64 on the CPU, on a few rows."""
        if timed.failure:
            return timed.failure
        expected = reference(self.case, self.half)
        return f"{np.abs(timed.value[:FEW, :FEW] - expected).max():.1e}"


def in_precision(network, half):
    """Return a copy, in bfloat16 where asked for."""
    copied = deepcopy(network)
    return copied.bfloat16() if half else copied


@functools.cache
def reference(case, half):
    """Return the similarities of a few rows from autograd's gradients, float64 on the CPU."""
    network, X = drawn(case)
    network = in_precision(network, half).double()
    rows = X[:FEW].double() if X.is_floating_point() else X[:FEW]
    parameters, found = list(network.parameters()), []
    for sample in rows:
        output = network(sample[None])[0, OUTPUT]
        parts = torch.autograd.grad(output, parameters, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([part.flatten() for part in parts]))
    return normalize_gram(torch.stack([torch.stack([a @ b for b in found]) for a in found])).numpy()


def shown(error):
    """Say what an error is, in a cell of a table."""
    message = " ".join(str(error).split())[:MESSAGE].replace("|", "/")
    return f"failed: {type(error).__name__}: {message}"


@dataclass
class Timed:
    """Seconds and peak device memory (MiB) of a function's calls, and the last value."""

    function: Any
    seconds: list = field(default_factory=list)
    peak: float = 0.0
    value: Any = None
    failure: str = ""

    def call(self, X):
        """Time one call; a function that has failed is not called again."""
        if self.failure:
            return
        before, start = allocated(), time.perf_counter()
        try:
            self.value = self.function(X)
            peak = allocated(most=True)
        except Exception as error:
            self.failure = shown(error)
            return
        self.seconds.append(time.perf_counter() - start)
        self.peak = max(self.peak, (peak - before) / 2**20)

    @property
    def median(self):
        """Return the median seconds; not a number where the function failed."""
        return float("nan") if self.failure else statistics.median(self.seconds)


def allocated(most=False):
    """Wait for the device; return the bytes allocated now, or the most since the last call."""
    if not torch.cuda.is_initialized():
        return 0
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak if most else torch.cuda.memory_allocated()


def interleaved(functions, X, few=FEW):
    """Time functions in turns, after a call on a few rows that is not counted."""
    found = [Timed(function) for function in functions]
    for function in functions:
        Timed(function).call(X[:few])
    start = time.monotonic()
    for _ in range(ROUNDS):
        for timed in found:
            timed.call(X)
        if time.monotonic() - start > SLOW_SECONDS:
            break
    return found


def measured(subject, parts):
    """Return the cells of all parts."""
    cells = [f"{subject.size:,}"]
    for part, width in parts.items():
        try:
            found = part(subject)
        except Exception as error:
            found = [shown(error)]
        cells += padded(found, width)
        freed()
    return cells


def padded(cells, width):
    """Fill up some cells."""
    return [*cells, *["–"] * (width - len(cells))]
