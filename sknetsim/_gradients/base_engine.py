"""Common base of the engines: isolated evaluation of a network on samples, chunk by chunk.

Index legend: n samples.
"""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._kernels.jacobian import Jacobian
from .._networks.batches import (
    Inputs,
    find_tensors,
    list_tensors,
    map_tensors,
    slice_batch,
    take_batch,
)
from .._networks.fingerprint import digest_samples, fingerprint_samples, fingerprint_value
from .._networks.isolation import IsolatedNetwork, check_device, is_half
from .._networks.memory import CHUNK, halve, keep_freed_pages, memory_budget
from .._networks.network import Network
from .._networks.samples import Samples
from .._networks.samples.padding import are_equal, list_candidates, list_shapes
from ..exceptions import UnsupportedNetworkError, is_out_of_memory, locate_rows
from .verification import is_close

# A larger chunk does not fit in the caches of a CPU and is slower, even if the budget allows it.
_CHUNK_BYTES = 2**28

# Largest number of samples per chunk.
_CHUNK_SAMPLES = 2560


class BaseEngine(abc.ABC):
    """Base class of engines, which compute Jacobians of a network or arrays used like Jacobians.

    Parameters
    ----------
    network : Network
        The network.
    selected : set of str
        Names of the parameters that require a gradient.
    batch_size : int or None
        Samples per chunk; None derives it from the memory budget.
    device : str, device or None
        Device of the evaluation; None for the device of the network.
    list_compared : callable
        Function that returns the tensors of the raw outputs that are compared.

    Attributes
    ----------
    dtype : dtype
        The dtype of the gradients.
    n_jobs : int or None
        Workers for passes over the samples, see `_passes/parallel.py`; 1 inside a worker.
    """

    def __init__(
        self,
        network: Network,
        selected: set[str],
        batch_size: int | None = None,
        device: Any = None,
        list_compared: Callable[[Any], list[Tensor]] = find_tensors,
    ):
        keep_freed_pages()
        self.network = network
        self.batch_size = batch_size
        self.device = network.device if device is None else check_device(device)
        self.n_jobs: int | None = 1
        self.dtype = network.dtype
        # Bytes per sample, if the blocks keep their factors and if not; 0 before it is measured.
        self._sample_bytes = {True: 0, False: 0}
        self._list_compared = list_compared
        self._cast_integers: bool | None = None
        self._isolated = IsolatedNetwork(network.module, selected, self.device)

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a fingerprint of the network, and of the parameters of the engine."""

    def fingerprint_of_samples(self, X: Samples) -> str:
        """Return the fingerprint of the samples, after the steps before the network."""
        return fingerprint_samples(self._prepare(X), self.dtype)

    def digest(self, X: Samples, dtype: torch.dtype) -> list[bytes]:
        """Return a digest of each sample, after the steps before the network."""
        return digest_samples(self._prepare(X), dtype)

    def _prepare(self, X: Samples) -> Samples:
        """Return the samples after the steps before the network, with their labels."""
        return self.network.prepare(X).with_labels(X.labels)

    def check_samples_independent(self, X: Samples) -> None:
        """Check that the steps before the network transform each sample independently.

        Some samples are transformed together, and each on its own.
        """
        if len(X) == 1 or not self.network.has_steps:
            return
        indices = sorted({0, 1, len(X) // 2, len(X) - 2, len(X) - 1})
        together = self._prepare_tensors(X, indices)
        for position, index in enumerate(indices):
            alone = self._prepare_tensors(X, [index])
            for first, second in zip(alone, together, strict=True):
                row = second[position : position + 1]
                if first.shape != row.shape:
                    continue  # Padding is checked in each chunk.
                if not are_equal(first, row):
                    raise UnsupportedNetworkError(
                        "`estimator` must transform each sample independently before the network;"
                        " got steps whose result for a sample on its own differs from that with"
                        " other samples. Let them learn what they need in their fit, make them"
                        " deterministic, or apply them to X first."
                    )

    def _prepare_tensors(self, X: Samples, indices: list[int]) -> list[Tensor]:
        """Return some samples after the steps before the network, as tensors."""
        prepared = self.network.prepare(X.select(indices))
        return list_tensors(prepared.take(slice(0, len(indices))))

    def fingerprint(self, X: Samples) -> str:
        """Return a fingerprint of everything that determines the Jacobians of X."""
        return fingerprint_value((self.identity(), self.fingerprint_of_samples(X)))

    @abc.abstractmethod
    def _measure(self, samples: Samples, factored: bool) -> None:
        """Set ``_sample_bytes[factored]``; leave 0 if it must be measured again."""

    @abc.abstractmethod
    def _compute_chunk(self, samples: Samples, chunk: slice, factored: bool) -> Jacobian | None:
        """Return the Jacobians of a chunk; None if the chunk must be computed again."""

    def jacobians(
        self, X: Samples, start: int = 0, factored: bool = False
    ) -> Iterator[tuple[slice, Jacobian]]:
        """Yield the Jacobians of the samples of X from ``start`` on, chunk by chunk.

        Parameters
        ----------
        X : Samples of length n
            The samples. Their labels are used if the compared output is the loss.
        start : int
            First sample.
        factored : bool
            Whether the blocks keep the factors of the layers; else they are in the form that is
            best for sums.

        Yields
        ------
        chunk : slice
            The samples of the chunk.
        jacobian : Jacobian
            Their Jacobians.
        """
        samples = self._prepare(X)
        limit = self.batch_size or _CHUNK_SAMPLES
        while start < len(samples):
            affordable = self._count_affordable_samples(samples, factored)
            step = min(limit, affordable, len(samples) - start)
            chunk = slice(start, start + step)
            try:
                jacobian = self._compute_chunk(samples, chunk, factored)
            except (RuntimeError, MemoryError) as error:
                limit = halve(step, error)
                continue
            if jacobian is None:
                # The chunk is computed again, in another way that may need more memory.
                self._sample_bytes[factored] = 0
                continue
            yield chunk, jacobian
            start = chunk.stop

    def _count_affordable_samples(self, samples: Samples, factored: bool) -> int:
        """Return the number of samples per chunk that fit in the memory budget."""
        if len(samples) == 1 or self.batch_size:
            return len(samples)
        while self._sample_bytes[factored] == 0:
            self._measure(samples, factored)
        budget = memory_budget(CHUNK, self.device)
        # The caches of a CUDA device are small beside its memory, and it needs large batches.
        largest = budget if self.device.type == "cuda" else min(_CHUNK_BYTES, budget)
        return max(1, largest // self._sample_bytes[factored])

    @contextlib.contextmanager
    def batch(
        self, samples: Samples, chunk: slice
    ) -> Iterator[tuple[nn.Module, Inputs, Tensor | None]]:
        """Yield the module to call, the samples of a chunk, and their labels, on the device."""
        inputs = samples.take(chunk)
        name = self.network.inputs_name
        with locate_rows(samples.rows[chunk], name), self._isolated.borrow() as module:
            y = None if samples.labels is None else self._move(samples.labels[chunk])
            inputs = self._cast(module, inputs)
            if samples.may_be_padded:
                self._check_padding(module, samples, chunk.start, inputs)
            yield module, inputs, y

    def _check_padding(
        self, module: nn.Module, samples: Samples, start: int, inputs: Inputs
    ) -> None:
        """Raise an error if the outputs of a sample depend on how far it is padded in a batch."""
        for row in list_candidates(inputs, 2):
            alone = self._cast(module, samples.take_alone(start + row))
            together = take_batch(inputs, [row])
            if are_equal(alone, together) or not all(map(math.prod, list_shapes(alone))):
                continue  # The network may fail on an empty sequence.
            raw = [self.forward(module, x) for x in (alone, together)]
            outputs, padded = map(self._list_compared, raw)
            if not all(map(is_close, outputs, padded)):
                raise UnsupportedNetworkError(
                    "`estimator` must return outputs for a sample that do not depend on its"
                    f" padding; got different outputs for row {samples.rows[start + row]} on its"
                    " own than in a batch with other samples, as steps or `collate_fn` form it. Let"
                    " the network ignore the padding (by a mask, or the lengths), pad all samples"
                    " to one fixed length, and keep their order."
                )

    def _cast(self, module: nn.Module, inputs: Inputs) -> Inputs:
        """Return the inputs on the device, in the network's dtype.

        Integers are cast only if the network fails on integers, and does not fail on their cast.
        """
        inputs = map_tensors(self._move, inputs)
        floating = map_tensors(lambda t: t.to(self.dtype), inputs)
        kept = map_tensors(lambda t: t.to(self.dtype) if t.is_floating_point() else t, inputs)
        if all(tensor.is_floating_point() for tensor in list_tensors(kept)):
            return kept
        if self._cast_integers is None:
            self._cast_integers = not self._runs(module, kept) and self._runs(module, floating)
        return floating if self._cast_integers else kept

    def _move(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device that autograd can save (no inference tensor)."""
        return (tensor.clone() if tensor.is_inference() else tensor).to(self.device)

    def _runs(self, module: nn.Module, inputs: Inputs) -> bool:
        """Return whether the network accepts the first sample of a batch."""
        with contextlib.suppress(RuntimeError, TypeError):
            self.call(module, slice_batch(inputs, slice(0, 1)))
            return True
        return False

    def call(self, module: Callable[..., Any], inputs: Inputs) -> Any:
        """Return the network's raw output for copied inputs, which it may change in place."""
        own = map_tensors(lambda tensor: tensor.detach().clone(), inputs)
        return self._isolated.call(lambda: self.network.call(module, own))

    def forward(self, module: nn.Module, inputs: Inputs) -> Any:
        """Return the network's raw output; if it fails, raise an error with the shape of X."""
        try:
            return self.call(module, inputs)
        except UnsupportedNetworkError:
            raise
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            if is_half(self.network.module):
                raise UnsupportedNetworkError(
                    "`estimator` must be a network that can be evaluated in float32; got a"
                    f" half-precision network that fails in float32: {error}. Call .float() on it"
                    " first, and remove half precision from its code."
                ) from error
            shapes = ", ".join(f"{tuple(t.shape[1:])} ({t.dtype})" for t in list_tensors(inputs))
            one = "".join(f", {length}" for length in list_tensors(inputs)[0].shape[1:])
            raise UnsupportedNetworkError(
                "`X` must contain samples of the shape and dtype that the network was trained on;"
                f" got samples of shape {shapes}, on which `estimator` fails: {error}. Reshape or"
                " convert X, or set `input_shape` for flat rows. The first axis of X is that of the"
                f" samples: pass a single sample as X[None], of shape (1, len(X){one})."
            ) from error
